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
//! A get of many keys is as many frames: each key may have another owner, another fate and another
//! way to go on, and one write carries them all. Every reply carries the id and the cache of the
//! request it answers; a proxy that gets one that it did not wait for closes the link.
//!
//! Decoding borrows from the buffer and allocates nothing; encoding appends to a buffer that the
//! link keeps. Whatever the bytes, the answer is a value, "need more" or [`frame::WrongFrame`].

pub mod frame;
pub mod handshake;
pub mod operation;
pub mod reply;
pub mod request;

#[cfg(test)]
mod laws;
