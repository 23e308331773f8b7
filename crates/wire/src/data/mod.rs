//! What proxies and backends say to each other.
//!
//! ```text
//!   proxy ── Hello ──────────────────────────────▶ backend     who I am, whom I want, which versions
//!         ◀────────────────── Welcome │ Refused ──             one frame each, of crate::frame
//!
//!         ── [prefix │ request header │ operation] … ──▶       many in flight, in any number per write
//!         ◀── [prefix │ reply header │ answer] …      ──       in the order in which they were done
//! ```
//!
//! What a client asks at one time goes to each backend in as few frames: reads together ([`many`]),
//! each write by itself, and one write call carries them all. Every reply carries the id and the cache of the
//! request it answers; a proxy that gets one that it did not wait for closes the link.
//!
//! Decoding borrows from the buffer and allocates nothing; encoding appends to a buffer that the
//! link keeps. Whatever the bytes, the answer is a value, "need more" or [`frame::WrongFrame`].

pub mod frame;
pub mod handshake;
pub mod many;
pub mod operation;
pub mod reply;
pub mod request;

#[cfg(test)]
mod laws;
