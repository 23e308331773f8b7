//! The load generator against servers: the distribution's memcached, and some that misbehave.

mod memcached;
mod misbehaving;
mod support;
