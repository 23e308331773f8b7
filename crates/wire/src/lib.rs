//! Every byte that our own programs send one another.
//!
//! ```text
//!   control ◀── control: what caches, credentials and members there are ──▶ node
//!   proxy   ◀── data: requests for items, and their outcomes ─────────────▶ backend of another node
//!                  │
//!                  ▼ both
//!                frame   length, version, kind, body      (a hard maximum before any length is believed)
//!                codec   numbers and short strings, little-endian
//! ```
//!
//! Pure: bytes in, values out, and back. Decoders are total: whatever the bytes, the answer is a
//! value, "need more", or an error that says what is wrong; none panics and none allocates more than
//! the frame it was given.

pub mod codec;
pub mod control;
pub mod data;
pub mod frame;
