//! The laws of [`protocol::laws`], with inputs that look like what clients send, and with any bytes.

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any};
use proptest::sample::select;
use proptest::{prop_assert_eq, prop_oneof, proptest};

use protocol::command::{COMMANDS, Dialect, Wire};
use protocol::laws::check;
use protocol::request::Limits;
use protocol::sasl::plain;

/// Small, so that values beyond it are seen.
const LIMITS: Limits = Limits { item_bytes_max: 300, is_login: false };

proptest! {
    #[test]
    fn lines_obey_the_laws(lines in vec(line(), 1..6)) {
        check(Dialect::Text, &lines.concat(), &LIMITS);
    }

    #[test]
    fn frames_obey_the_laws(frames in vec(frame(), 1..6)) {
        check(Dialect::Binary, &frames.concat(), &LIMITS);
    }

    #[test]
    fn any_bytes_obey_the_laws(bytes in vec(any::<u8>(), 0..400)) {
        check(Dialect::Text, &bytes, &LIMITS);
        check(Dialect::Binary, &bytes, &LIMITS);
    }

    #[test]
    fn a_plain_message_gives_back_what_it_was_made_of(
        username in "[a-z0-9]{1,20}",
        password in "[ -~]{1,40}",
    ) {
        let message = format!("\0{username}\0{password}");
        let candidate = plain(message.as_bytes());
        let parts = candidate.map(|candidate| (candidate.username, candidate.password));
        prop_assert_eq!(parts, Some((username.as_bytes(), password.as_bytes())));
    }

    #[test]
    fn any_message_is_read_or_refused(message in vec(any::<u8>(), 0..1000)) {
        plain(&message);
    }
}

#[test]
fn lines_that_look_like_requests_often_are() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let requests: usize = (0..500)
        .map(|_| {
            let bytes = line().new_tree(&mut runner).expect("nothing is filtered").current();
            check(Dialect::Text, &bytes, &LIMITS)
        })
        .sum();
    assert!(100 < requests, "only {requests} of 500 lines were requests, so the laws saw little");
}

/// A line of a known command with words that make sense somewhere, and perhaps a value.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let names: Vec<_> = COMMANDS
        .iter()
        .filter(|row| !matches!(row.wire, Wire::Binary { .. }))
        .map(|row| row.name.to_owned())
        .collect();
    let word = prop_oneof![
        5 => "[a-z]{1,8}",
        5 => (0..400_u32).prop_map(|number| number.to_string()),
        2 => any::<i64>().prop_map(|number| number.to_string()),
        4 => "[bcfhklqstuvxCDEFIJLMNOPRT][0-9a-z]{0,3}",
        1 => Just("noreply".to_owned()),
        1 => "k{250,251}",
        1 => "\\PC{0,3}",
    ];
    let end = select(vec!["\r\n", "\n", " \r\n", "\r\r\n", ""]);
    let stored = (select(vec!["set", "add", "append", "cas"]), 0..320_usize, any::<bool>())
        .prop_map(|(name, length, right)| {
            let value = "v".repeat(if right { length } else { length / 2 });
            format!("{name} key 1 0 {length} 7\r\n{value}\r\n").into_bytes()
        });
    let meta = (0..320_usize, "( [bcfhklqstuvxCDEFIJLMNOPRT][0-9]{0,2}){0,5}").prop_map(
        |(length, flags)| {
            format!("ms Zm9v {length}{flags}\r\n{}\r\n", "v".repeat(length)).into_bytes()
        },
    );
    let other = (select(names), vec(word, 0..6), end)
        .prop_map(|(name, words, end)| format!("{name} {}{end}", words.join(" ")).into_bytes());
    prop_oneof![4 => other, 1 => stored, 1 => meta]
}

/// A frame whose lengths are mostly true.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let lie = prop_oneof![9 => Just(0_u32), 1 => any::<u32>()];
    (any::<u8>(), 0..40_u8, 0..260_usize, select(vec![0_usize, 4, 8, 20, 3]), 0..320_usize, lie)
        .prop_map(|(magic, opcode, key, extras, value, lie)| {
            let mut frame = vec![0; 24 + extras + key + value];
            frame[0] = if magic < 250 { 0x80 } else { magic };
            frame[1] = opcode;
            frame[2..4].copy_from_slice(&(key as u16).to_be_bytes());
            frame[4] = extras as u8;
            let body = ((extras + key + value) as u32).wrapping_add(lie);
            frame[8..12].copy_from_slice(&body.to_be_bytes());
            frame
        })
}
