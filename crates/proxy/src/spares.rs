//! Memory that answers of other nodes were kept in, for the next ones to be kept in.
//!
//! A connection holds none of it at rest. With one request in flight each piece would be asked of the
//! allocator and given back for every request, and that was a fifth of what a proxy executes for it outside
//! of the kernel. So the pieces go round among the connections of a loop. They go round empty: nobody
//! finds in one what another tenant had there.

use crate::answers::Answers;
use crate::routing::Routing;

/// What is kept by one loop: enough for fifty clients who ask for a hundred small items each.
const BYTES_MAX: usize = 2 * 1024 * 1024;

/// Larger pieces are given back. Whoever is slow to take a small answer shall not hold much more memory
/// than that takes.
const PIECE_BYTES_MAX: usize = 32 * 1024;

#[derive(Default)]
pub(crate) struct Spares {
    #[expect(clippy::vec_box, reason = "a session has its queue in a box, and the box goes round")]
    answers: Vec<Box<Answers>>,
    buffers: Vec<Vec<u8>>,
    /// Of all of these.
    bytes: usize,
}

impl Spares {
    /// A queue of answers that begins with this number.
    pub(crate) fn answers(&mut self, first: u64, routing: Option<&Routing>) -> Box<Answers> {
        let mut answers = match self.answers.pop() {
            Some(answers) => {
                self.bytes -= answers.bytes_held();
                answers
            }
            None => Box::default(),
        };
        answers.begin(first, routing, self.buffer());
        answers
    }

    /// Takes back a queue of which all was said.
    pub(crate) fn keep_answers(&mut self, mut answers: Box<Answers>) {
        self.keep_buffer(answers.end());
        if self.takes(answers.bytes_held()) {
            self.answers.push(answers);
        }
    }

    /// An empty buffer.
    pub(crate) fn buffer(&mut self) -> Vec<u8> {
        let buffer = self.buffers.pop().unwrap_or_default();
        self.bytes -= buffer.capacity();
        buffer
    }

    /// Takes back a buffer whose content nobody needs.
    pub(crate) fn keep_buffer(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        if buffer.capacity() != 0 && self.takes(buffer.capacity()) {
            self.buffers.push(buffer);
        }
    }

    fn takes(&mut self, bytes: usize) -> bool {
        let takes = bytes <= PIECE_BYTES_MAX && self.bytes + bytes <= BYTES_MAX;
        self.bytes += if takes { bytes } else { 0 };
        takes
    }
}

#[cfg(test)]
mod tests {
    use super::{BYTES_MAX, PIECE_BYTES_MAX, Spares};

    #[test]
    fn buffers_go_round_empty() {
        let mut spares = Spares::default();
        spares.keep_buffer(b"another tenant's".to_vec());
        let buffer = spares.buffer();
        assert!(buffer.is_empty() && buffer.capacity() != 0);
        assert_eq!(spares.buffer().capacity(), 0, "there was one");
        assert_eq!(spares.bytes, 0);
    }

    #[test]
    fn no_more_is_kept_than_the_limits_say() {
        let mut spares = Spares::default();
        spares.keep_buffer(Vec::with_capacity(PIECE_BYTES_MAX + 1));
        assert_eq!(spares.bytes, 0, "it is too large");
        for _ in 0..2 * BYTES_MAX / PIECE_BYTES_MAX {
            spares.keep_buffer(Vec::with_capacity(PIECE_BYTES_MAX));
        }
        assert_eq!(spares.bytes, BYTES_MAX);
        assert_eq!(spares.buffers.len(), BYTES_MAX / PIECE_BYTES_MAX);
    }

    #[test]
    fn what_is_taken_out_makes_room_again() {
        let mut spares = Spares::default();
        for _ in 0..1_000 {
            let queues: Vec<_> = (0..10).map(|first| spares.answers(first, None)).collect();
            assert_eq!(spares.bytes, 0, "all are in use");
            queues.into_iter().for_each(|queue| spares.keep_answers(queue));
        }
        assert_eq!(spares.answers.len(), 10);
    }
}
