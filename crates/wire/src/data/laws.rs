//! What holds for every request and reply: it comes back as it was, however it is cut; damage is
//! found; and no bytes make a decoder panic.

use std::hint::black_box;

use cluster::map::Epoch;
use cluster::ownership::{RunTag, Token};
use cluster::slot::{SLOTS, Slot};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::sample::Index;
use protocol::operation::{
    Arithmetic, ArithmeticOutcome, Delete, DeleteOutcome, Direction, Exptime, Get, Hit, Initial,
    Key, Lease, Store, StoreMode, StoreOutcome, Touch, TouchOutcome,
};
use tenancy::id::CacheId;

use super::frame::{Decoded, Seal, WrongFrame};
use super::many::{self, AnswersWriter, READS_MAX, Reads};
use super::operation::{Operation, key_of_own, without_trace};
use super::reply::{Answer, Busy, Figures, Outcome, Refusal, Reply, ReplyHeader};
use super::request::{HOPS_MAX, Request, RequestHeader};

/// The bytes that a request or reply borrows.
#[derive(Debug, Clone)]
struct Bytes {
    key: Vec<u8>,
    value: Vec<u8>,
    name: String,
    numbers: [Option<i64>; 6],
    truths: [bool; 5],
    fixed: [u64; 4],
    figures: Vec<(String, u64)>,
}

fn bytes() -> impl Strategy<Value = Bytes> {
    (
        vec(any::<u8>(), 1..=250),
        vec(any::<u8>(), 0..600),
        "[a-z0-9.-]{1,63}",
        any::<[Option<i64>; 6]>(),
        any::<[bool; 5]>(),
        any::<[u64; 4]>(),
        vec(("[a-z_]{0,20}", any::<u64>()), 0..40),
    )
        .prop_map(|(key, value, name, numbers, truths, fixed, figures)| Bytes {
            key,
            value,
            name,
            numbers,
            truths,
            fixed,
            figures,
        })
}

impl Bytes {
    /// One of every kind of operation, with every optional field there or not.
    fn operation(&self, kind: usize) -> Operation<'_> {
        let key = Key::new(&self.key).expect("1 to 250 bytes");
        let exptime = |at: usize| self.numbers[at].map(Exptime);
        let number = |at: usize| self.numbers[at].map(i64::cast_unsigned);
        let [a, b, c, ..] = self.truths;
        match kind % 11 {
            0 => Operation::Get(Get {
                key,
                touch: exptime(0),
                vivify: exptime(1),
                recache_below_seconds: self.numbers[2],
                new_cas: number(3),
                unseen: a,
                leases: b,
            }),
            1 => Operation::Peek(key),
            2 => Operation::Store(Store {
                key,
                value: &self.value,
                flags: self.fixed[0] as u32,
                exptime: Exptime(self.fixed[1].cast_signed()),
                mode: [
                    StoreMode::Set,
                    StoreMode::Add,
                    StoreMode::Replace,
                    StoreMode::Append,
                    StoreMode::Prepend,
                ][self.fixed[2] as usize % 5],
                compare_cas: number(0),
                new_cas: number(1),
                invalidate: a,
                vivify: exptime(2),
            }),
            3 => Operation::Delete(Delete {
                key,
                compare_cas: number(0),
                new_cas: number(1),
                invalidate: a,
                touch: exptime(2),
                remove_value: b,
            }),
            4 => Operation::Arithmetic(Arithmetic {
                key,
                direction: if c { Direction::Decrement } else { Direction::Increment },
                delta: self.fixed[0],
                initial: self.numbers[4].map(|number| Initial {
                    number: number.cast_unsigned(),
                    exptime: Exptime(self.fixed[1].cast_signed()),
                }),
                compare_cas: number(0),
                new_cas: number(1),
                touch: exptime(2),
            }),
            5 => Operation::Touch(Touch { key, exptime: Exptime(self.fixed[0].cast_signed()) }),
            6 => Operation::Flush { delay: Exptime(self.fixed[0].cast_signed()) },
            7 => Operation::Figures,
            8 => Operation::ResetFigures,
            9 => Operation::Who,
            _ => Operation::Ping,
        }
    }

    /// One of every kind of answer.
    fn answer<'a>(&'a self, kind: usize, buffer: &'a mut Vec<u8>) -> Answer<'a> {
        let [number, cas, epoch, to] = self.fixed;
        let ttl_seconds = self.numbers[0].map(|ttl| ttl as u32);
        let done = |outcome| Answer::Done(outcome);
        match kind % 22 {
            0 => done(Outcome::Get(Some(Hit {
                value: &self.value,
                flags: number as u32,
                cas,
                ttl_seconds,
                read_before: self.truths[0],
                idle_seconds: epoch as u32,
                lease: Lease { won: self.truths[1], stale: self.truths[2], taken: self.truths[3] },
            }))),
            1 => done(Outcome::Get(None)),
            2 => done(Outcome::Store(StoreOutcome::Stored { cas, value_bytes: number as u32 })),
            3 => done(Outcome::Store(
                [
                    StoreOutcome::NotStored,
                    StoreOutcome::Exists,
                    StoreOutcome::NotFound,
                    StoreOutcome::TooLarge,
                    StoreOutcome::OutOfMemory,
                ][number as usize % 5],
            )),
            4 => done(Outcome::Delete(
                [DeleteOutcome::Deleted, DeleteOutcome::NotFound, DeleteOutcome::Exists]
                    [number as usize % 3],
            )),
            5 => done(Outcome::Arithmetic(ArithmeticOutcome::Counted { number, cas, ttl_seconds })),
            6 => done(Outcome::Arithmetic(
                [
                    ArithmeticOutcome::NotFound,
                    ArithmeticOutcome::NotNumeric,
                    ArithmeticOutcome::Exists,
                    ArithmeticOutcome::OutOfMemory,
                ][number as usize % 4],
            )),
            7 => done(Outcome::Touch(TouchOutcome::Touched { cas, flags: number as u32 })),
            8 => done(Outcome::Touch(TouchOutcome::NotFound)),
            9 => done(Outcome::Done),
            10 => {
                let figures = self.figures.iter().map(|(name, figure)| (name.as_str(), *figure));
                done(Outcome::Figures(Figures::encode(figures, buffer)))
            }
            11 => Answer::Refused(Refusal::Moved {
                to: &self.name,
                token: Token { epoch: Epoch::new(epoch), to: RunTag::new(to) },
            }),
            12 => Answer::Refused(Refusal::NotYet { ask: Some(&self.name) }),
            13 => Answer::Refused(Refusal::NotYet { ask: None }),
            14 => Answer::Refused(Refusal::Unknown { epoch: Epoch::new(epoch) }),
            15 => Answer::Refused(Refusal::Busy(Busy::Cache)),
            16 => Answer::Refused(Refusal::Busy(Busy::Link)),
            17 => Answer::Refused(Refusal::Busy(Busy::Parked)),
            18 => Answer::Refused(Refusal::Busy(Busy::Draining)),
            19 => Answer::Refused(Refusal::Expired),
            20 => Answer::Refused(Refusal::NoSuchCache),
            _ => Answer::Failed,
        }
    }
}

fn header() -> impl Strategy<Value = RequestHeader> {
    let token = option::of((any::<u64>(), any::<u64>()));
    (any::<[u64; 3]>(), any::<u32>(), 0..SLOTS, 0..=HOPS_MAX, token).prop_map(
        |([id, cache, epoch], deadline_ms, slot, hops_left, token)| RequestHeader {
            id,
            cache: CacheId::new(cache),
            epoch: Epoch::new(epoch),
            deadline_ms,
            slot: Slot::new(slot).expect("below SLOTS"),
            hops_left,
            token: token.map(|(epoch, to)| Token { epoch: Epoch::new(epoch), to: RunTag::new(to) }),
        },
    )
}

fn seal() -> impl Strategy<Value = Seal> {
    prop_oneof![Just(Seal::Checksum), Just(Seal::Tls)]
}

/// The operations and answers compare by what they show: they borrow and have no equality.
fn shown(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}")
}

#[test]
fn answers_that_are_large_together_take_several_frames() {
    let value = vec![7; 100_000];
    let hit = Hit {
        value: &value,
        flags: 1,
        cas: 2,
        ttl_seconds: None,
        read_before: false,
        idle_seconds: 3,
        lease: Lease::default(),
    };
    let header = ReplyHeader { id: 1, cache: CacheId::new(2) };
    let mut written = Vec::new();
    let mut writer = AnswersWriter::new(&mut written, header, Seal::Checksum);
    (0..10).for_each(|_| writer.push(&Answer::Done(Outcome::Get(Some(hit)))));
    drop(writer);
    let (mut rest, mut answers, mut frames) = (&written[..], 0, 0);
    while let Ok(Decoded::Complete { frame, consumed }) = Reply::decode(rest, Seal::Checksum) {
        assert_eq!(frame.header, header);
        let Answer::Many(some) = frame.answer else { panic!("many were written") };
        answers += some.iter().filter(Result::is_ok).count();
        frames += 1;
        rest = &rest[consumed..];
    }
    assert_eq!((answers, frames, rest.len()), (10, 4, 0));
}

#[test]
fn what_may_not_go_together_is_no_frame() {
    let key = Key::new(b"key").expect("a good key");
    let slot = Slot::new(1).expect("there are more");
    let get = |out: &mut Vec<u8>| many::push(out, slot, &Operation::Get(Get::plain(key)));
    let decoded = |operation: &[u8]| match Operation::decode(operation) {
        Ok(Operation::Many(reads)) => reads.iter().map(|read| read.decode().is_ok()).collect(),
        _ => Vec::new(),
    };
    let mut many = Vec::new();
    many::begin(&mut many);
    assert!(Operation::decode(&many).is_err(), "no read at all");
    (0..READS_MAX).for_each(|_| get(&mut many));
    assert_eq!(decoded(&many), vec![true; READS_MAX]);
    let mut too_many = many.clone();
    get(&mut too_many);
    assert!(Operation::decode(&too_many).is_err(), "one too many");
    assert!(Operation::decode(&many[..many.len() - 1]).is_err(), "one cut short");
    for other in [Operation::Ping, Operation::Touch(Touch { key, exptime: Exptime(1) })] {
        let (mut alone, mut mixed) = (Vec::new(), Vec::new());
        other.encode(&mut alone);
        many::begin(&mut mixed);
        many::push_encoded(&mut mixed, slot, &alone);
        get(&mut mixed);
        assert_eq!(decoded(&mixed), [false, true]);
    }
    let mut nested = Vec::new();
    many::begin(&mut nested);
    many::push_encoded(&mut nested, slot, &many[..20]);
    assert!(!decoded(&nested).contains(&true));
}

proptest! {
    #[test]
    fn a_request_comes_back_as_it_was(
        bytes in bytes(), kind in 0..11usize, header in header(), seal in seal(),
    ) {
        let request = Request { header, operation: bytes.operation(kind) };
        let mut out = b"before".to_vec();
        request.encode(&mut out, seal);
        let written = out.split_off(6);
        let Ok(Decoded::Complete { frame, consumed }) = Request::decode(&written, seal) else {
            panic!("a whole request was written");
        };
        prop_assert_eq!(consumed, written.len());
        prop_assert_eq!(shown(&frame), shown(&request));
        prop_assert_eq!(shown(&frame.operation.key()), shown(&request.operation.key()));
        // The same, from an operation that was encoded before.
        let (mut operation, mut again) = (Vec::new(), Vec::new());
        request.operation.encode(&mut operation);
        header.encode(&mut again, &operation, seal);
        prop_assert_eq!(again, written);
    }

    #[test]
    fn a_reply_comes_back_as_it_was(
        bytes in bytes(), kind in 0..22usize, id: u64, cache: u64, seal in seal(),
    ) {
        let mut buffer = Vec::new();
        let header = ReplyHeader { id, cache: CacheId::new(cache) };
        let reply = Reply { header, answer: bytes.answer(kind, &mut buffer) };
        let mut written = Vec::new();
        reply.encode(&mut written, seal);
        let Ok(Decoded::Complete { frame, consumed }) = Reply::decode(&written, seal) else {
            panic!("a whole reply was written");
        };
        prop_assert_eq!(consumed, written.len());
        prop_assert_eq!(shown(&frame), shown(&reply));
        if let Answer::Done(Outcome::Figures(figures)) = frame.answer {
            let told: Vec<_> =
                figures.iter().map(|(name, figure)| (name.to_owned(), figure)).collect();
            prop_assert_eq!(&told, &bytes.figures);
        }
    }

    #[test]
    fn many_reads_come_back_in_their_order(
        all in vec((bytes(), 0..2usize, 0..SLOTS), 1..=20), header in header(), seal in seal(),
    ) {
        let slot = |slot| Slot::new(slot).expect("below SLOTS");
        let mut operation = Vec::new();
        many::begin(&mut operation);
        for (bytes, kind, at) in &all {
            let before = operation.len();
            many::push(&mut operation, slot(*at), &bytes.operation(*kind));
            let mut again = operation[..before].to_vec();
            let mut alone = Vec::new();
            bytes.operation(*kind).encode(&mut alone);
            many::push_encoded(&mut again, slot(*at), &alone);
            prop_assert_eq!(&again, &operation);
        }
        let mut written = Vec::new();
        header.encode(&mut written, &operation, seal);
        let Ok(Decoded::Complete { frame, .. }) = Request::decode(&written, seal) else {
            panic!("a whole request was written");
        };
        let Operation::Many(reads) = frame.operation else { panic!("many were written") };
        let read: Vec<_> =
            reads.iter().map(|read| (read.slot.get(), shown(&read.decode().expect("a read")))).collect();
        let asked: Vec<_> =
            all.iter().map(|(bytes, kind, at)| (*at, shown(&bytes.operation(*kind)))).collect();
        prop_assert_eq!(read, asked);
        prop_assert_eq!(Reads::of_own(&operation).iter().count(), all.len());
        let mut again = Vec::new();
        frame.encode(&mut again, seal);
        prop_assert_eq!(again, written);
        // Asked a second time, of the same keys in the same order, and nobody counts it.
        let untraced = without_trace(&operation);
        prop_assert!(untraced.len() <= operation.len());
        let Ok(Operation::Many(reads)) = Operation::decode(&untraced) else { panic!("still many") };
        for (read, (bytes, _, at)) in reads.iter().zip(&all) {
            let peek = bytes.operation(1);
            let asked = (read.slot.get(), shown(&read.decode().expect("a read")));
            prop_assert_eq!(asked, (*at, shown(&peek)));
        }
        prop_assert_eq!(reads.iter().count(), all.len());
    }

    #[test]
    fn the_key_is_found_without_reading_the_rest(bytes in bytes(), kind in 0..11usize) {
        let operation = bytes.operation(kind);
        let mut encoded = Vec::new();
        operation.encode(&mut encoded);
        prop_assert_eq!(key_of_own(&encoded), operation.key());
    }

    #[test]
    fn only_a_get_is_asked_otherwise_when_it_is_asked_again(bytes in bytes(), kind in 0..11usize) {
        let (mut operation, mut expected) = (Vec::new(), Vec::new());
        bytes.operation(kind).encode(&mut operation);
        bytes.operation(kind.max(1)).encode(&mut expected);
        prop_assert_eq!(without_trace(&operation), expected);
    }

    #[test]
    fn many_answers_come_back_in_their_order(
        all in vec((bytes(), 0..22usize), 1..=20), id: u64, cache: u64, seal in seal(),
    ) {
        let header = ReplyHeader { id, cache: CacheId::new(cache) };
        let (mut written, mut said) = (Vec::new(), Vec::new());
        let mut writer = AnswersWriter::new(&mut written, header, seal);
        for (bytes, kind) in &all {
            let mut buffer = Vec::new();
            let answer = bytes.answer(*kind, &mut buffer);
            writer.push(&answer);
            said.push(shown(&answer));
        }
        drop(writer);
        let Ok(Decoded::Complete { frame, consumed }) = Reply::decode(&written, seal) else {
            panic!("a whole reply was written");
        };
        prop_assert_eq!(consumed, written.len(), "short answers take one frame");
        prop_assert_eq!(frame.header, header);
        let Answer::Many(answers) = frame.answer else { panic!("many were written") };
        let heard: Vec<_> =
            answers.iter().map(|answer| shown(&answer.expect("an answer"))).collect();
        prop_assert_eq!(heard, said);
        let mut again = Vec::new();
        frame.encode(&mut again, seal);
        prop_assert_eq!(again, written);
    }

    #[test]
    fn half_a_frame_asks_for_no_more_than_the_rest(
        bytes in bytes(), kind in 0..22usize, header in header(),
    ) {
        let mut buffer = Vec::new();
        let mut out = Vec::new();
        Request { header, operation: bytes.operation(kind) }.encode(&mut out, Seal::Checksum);
        for cut in 0..out.len() {
            let Ok(Decoded::NeedMore { bytes_total }) =
                Request::decode(&out[..cut], Seal::Checksum)
            else {
                panic!("half a request is none");
            };
            prop_assert!(cut < bytes_total && bytes_total <= out.len());
        }
        out.clear();
        let reply = ReplyHeader { id: header.id, cache: header.cache };
        Reply { header: reply, answer: bytes.answer(kind, &mut buffer) }
            .encode(&mut out, Seal::Checksum);
        for cut in 0..out.len() {
            let Ok(Decoded::NeedMore { bytes_total }) = Reply::decode(&out[..cut], Seal::Checksum)
            else {
                panic!("half a reply is none");
            };
            prop_assert!(cut < bytes_total && bytes_total <= out.len());
        }
    }

    #[test]
    fn a_damaged_frame_never_passes_for_another(
        bytes in bytes(), kind in 0..22usize, header in header(), at: Index, bits in 1..=255u8,
    ) {
        let mut buffer = Vec::new();
        let mut out = Vec::new();
        let header = ReplyHeader { id: header.id, cache: header.cache };
        let reply = Reply { header, answer: bytes.answer(kind, &mut buffer) };
        reply.encode(&mut out, Seal::Checksum);
        let at = at.index(out.len());
        out[at] ^= bits;
        // A damaged length may ask for more; then the checksum is looked at when more has come.
        out.resize(out.len() + 1_000, 0);
        match Reply::decode(&out, Seal::Checksum) {
            Ok(Decoded::NeedMore { .. }) => prop_assert!(at < 4),
            Ok(Decoded::Complete { frame, .. }) => panic!("byte {at} was damaged: {frame:?}"),
            Err(WrongFrame::TooLong { .. }) => prop_assert!(at < 4),
            Err(WrongFrame::Damaged) => (),
            Err(WrongFrame::Content(error)) => panic!("not found by the checksum: {error}"),
        }
    }

    #[test]
    fn any_bytes_have_an_answer(input: Vec<u8>) {
        for seal in [Seal::Checksum, Seal::Tls] {
            black_box(Request::decode(&input, seal)).ok();
            black_box(Reply::decode(&input, seal)).ok();
        }
        black_box(Operation::decode(&input)).ok();
    }

    /// Under a right prefix, so that the decoders of the content see it.
    #[test]
    fn any_content_has_an_answer(
        mut content in vec(any::<u8>(), 0..400), kind in 0..60u8, code in 0..32u8,
    ) {
        let mut input = u32::try_from(content.len()).expect("short").to_le_bytes().to_vec();
        input.extend_from_slice(&[0; 4]);
        if let Some(head) = content.get_mut(16..20) {
            head.copy_from_slice(&[kind, code, 0, 0]);
        }
        input.extend_from_slice(&content);
        if let Ok(Decoded::Complete { frame, consumed }) = Reply::decode(&input, Seal::Tls) {
            // One value has one encoding.
            let mut again = Vec::new();
            frame.encode(&mut again, Seal::Tls);
            prop_assert_eq!(&again[..], &input[..consumed]);
        }
        if let Some(word) = content.get_mut(28..32) {
            word[2] &= 0;
            word[3] &= 0x83;
        }
        if let Some(head) = content.get_mut(32) {
            *head = kind % 14;
        }
        input.truncate(8);
        input.extend_from_slice(&content);
        if let Ok(Decoded::Complete { frame, consumed }) = Request::decode(&input, Seal::Tls) {
            let mut again = Vec::new();
            frame.encode(&mut again, Seal::Tls);
            prop_assert_eq!(&again[..], &input[..consumed]);
        }
    }
}
