//! What an operator sees: files, variables and flags in, settings or problems out.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::{any, proptest};

use super::{Flag, Settings, TABLE, check, example, load};

#[test]
fn nothing_written_gives_the_defaults() {
    let settings = used("", &[], &[]);
    assert_eq!(settings, Settings::default());
    assert_eq!(settings.memory_bytes, 1 << 30);
    assert_eq!(settings.authentication_timeout, Duration::from_secs(5));
    assert_eq!(settings.threads, None);
    assert_eq!(settings.tls_listen, None);
}

#[test]
fn the_example_as_printed_changes_nothing() {
    assert_eq!(used(&example(), &[], &[]), Settings::default());
}

#[test]
fn the_example_with_every_setting_taken_in_changes_nothing() {
    let text = example();
    let taken_in: String = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with([' ', '\n']) => format!("{setting}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    assert_eq!(taken_in.matches(" = ").count(), TABLE.len(), "{taken_in}");
    assert_eq!(used(&taken_in, &[], &[]), Settings::default());
}

/// The document is the printed example, so it cannot fall behind the table.
#[test]
fn the_documented_example_is_the_printed_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/larder.toml");
    let documented = std::fs::read_to_string(&path).expect("docs/larder.toml is in the repository");
    assert!(
        documented == example(),
        "docs/larder.toml is not what `larder settings` prints; write its output there:\n{}",
        example()
    );
}

#[test]
fn a_file_in_the_units_of_people_becomes_the_units_of_code() {
    let settings = used(
        "threads = 4\n\
         memory_bytes = \"24 GiB\"\n\
         output_bytes_max = 2_097_152\n\
         idle_timeout_seconds = 0\n\
         log_level = 'debug'\n",
        &[],
        &[],
    );
    assert_eq!(settings.threads, Some(4));
    assert_eq!(settings.memory_bytes, 24 << 30);
    assert_eq!(settings.output_bytes_max, 2 << 20);
    assert_eq!(settings.idle_timeout, None);
    assert_eq!(settings.log_level, tracing::Level::DEBUG);
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file() {
    let file = "listen = \"127.0.0.1:1\"\nthreads = 1\nlog_format = \"json\"\n";
    let environment = [("LARDER_LISTEN", "127.0.0.1:2"), ("LARDER_THREADS", "2")];
    let settings = used(file, &environment, &[("listen", "--listen", "127.0.0.1:3")]);
    assert_eq!(settings.listen.port(), 3);
    assert_eq!(settings.threads, Some(2));
    assert_eq!(settings.log_format, crate::log::Format::Json);
}

#[test]
fn an_empty_word_takes_back_what_may_be_absent() {
    let settings = used("tls_listen = \"[::1]:0\"", &[("LARDER_TLS_LISTEN", "")], &[]);
    assert_eq!(settings.tls_listen, None);
}

#[test]
fn three_mistakes_are_told_at_once_each_with_its_line() {
    problems(
        "# a comment\nlisten = \"localhost\"\nmemory_byts = 5\n\n  threads = \"many\"\n",
        &[],
        &[],
        &[
            "larder.toml:2:10: listen must be an IP address with a port, such as \
             \"0.0.0.0:11211\" or \"[::]:11211\", not \"localhost\"",
            "larder.toml:3:1: unknown setting memory_byts; did you mean memory_bytes?",
            "larder.toml:5:13: threads must be a whole number from 1 to 1024, or 0, not \"many\"",
        ],
    );
}

#[test]
fn what_is_no_toml_hides_no_other_mistake() {
    problems(
        "threads = = 1\nmemory_bytes = 1\nlog_level = \"loud\"\nlog_level = \"info\"\n",
        &[],
        &[],
        &[
            "larder.toml:1:11: not TOML: extra `=`, expected nothing",
            "larder.toml:2:16: memory_bytes must be a size from 16 MiB to 16 TiB, such as \
             \"512 MiB\" or \"2 GB\", or a number of bytes, not 1",
            "larder.toml:3:13: log_level must be one of \"error\", \"warn\", \"info\", \"debug\", \
             \"trace\", not \"loud\"",
            "larder.toml:4:1: not TOML: duplicate key",
        ],
    );
}

#[test]
fn a_table_is_told_that_there_are_none() {
    problems(
        "[network]\nlisten = \"0.0.0.0:11211\"\n",
        &[],
        &[],
        &["larder.toml:1:2: unknown setting network; settings stand in no [table]"],
    );
}

#[test]
fn every_place_is_checked_even_where_another_overrides_it() {
    problems(
        "threads = -1\n",
        &[("LARDER_THREADS", "two"), ("LARDER_IDLE_TIMEOUT_SECOND", "1")],
        &[("threads", "--threads", "3"), ("log_level", "--log-level", "x")],
        &[
            "larder.toml:1:11: threads must be a whole number from 1 to 1024, or 0, not -1",
            "environment variable LARDER_IDLE_TIMEOUT_SECOND: unknown setting; did you mean \
             LARDER_IDLE_TIMEOUT_SECONDS?",
            "environment variable LARDER_THREADS: threads must be a whole number from 1 to 1024, \
             or 0, not \"two\"",
            "--log-level: log_level must be one of \"error\", \"warn\", \"info\", \"debug\", \
             \"trace\", not \"x\"",
        ],
    );
}

#[test]
fn variables_of_the_command_line_are_left_alone() {
    let settings = used("", &[("LARDER_API_KEY", "k"), ("LARDER_URL", "u"), ("PATH", "/bin")], &[]);
    assert_eq!(settings, Settings::default());
}

#[test]
fn settings_that_do_not_go_together_are_told() {
    problems(
        "tls_certificate = \"c.pem\"\nthreads = 2\ninput_bytes_max = \"15 MiB\"\n",
        &[],
        &[],
        &[
            "larder.toml:1:19: tls_certificate and tls_key go together: give both or neither",
            "larder.toml:1:19: tls_certificate has no use without tls_listen: give an address \
             such as \"0.0.0.0:11212\"",
            "larder.toml:3:19: input_bytes_max must be at least 8 MiB for each of the threads, or \
             the largest item could not be received",
        ],
    );
}

#[test]
fn a_wrong_setting_is_not_also_blamed_for_its_relations() {
    problems(
        "tls_listen = \"here\"\ntls_client_ca = \"ca.pem\"\n",
        &[],
        &[],
        &["larder.toml:1:14: tls_listen must be an IP address with a port, such as \
             \"0.0.0.0:11211\" or \"[::]:11211\"; or empty, not \"here\""],
    );
}

#[test]
fn two_listeners_need_two_addresses_unless_any_port_will_do() {
    problems(
        "tls_listen = \"127.0.0.1:11211\"\n",
        &[],
        &[],
        &["larder.toml:1:14: tls_listen and listen must be different addresses"],
    );
    used("listen = \"127.0.0.1:0\"\ncontrol_listen = \"127.0.0.1:0\"\n", &[], &[]);
}

#[test]
fn a_column_counts_characters() {
    problems(
        "listen = \"127.0.0.1:1\"\n\"größe\" = 1\nlog_level = \"é\" # x\nü",
        &[],
        &[],
        &[
            "larder.toml:2:1: unknown setting größe; `larder settings` prints all there are",
            "larder.toml:3:13: log_level must be one of \"error\", \"warn\", \"info\", \"debug\", \
             \"trace\", not \"é\"",
            "larder.toml:4:1: not TOML: invalid unquoted key, expected letters, numbers, `-`, `_`",
        ],
    );
}

#[test]
fn a_long_or_odd_value_is_shown_in_part_and_on_one_line() {
    problems(
        &format!("log_level = \"a\\n{}\"\n\"x\\ny\" = 1\n", "b".repeat(1_000)),
        &[],
        &[],
        &[
            &format!(
                "larder.toml:1:13: log_level must be one of \"error\", \"warn\", \"info\", \
                 \"debug\", \"trace\", not \"a\\n{}…\"",
                "b".repeat(62)
            ),
            "larder.toml:2:1: unknown setting x\\ny; `larder settings` prints all there are",
        ],
    );
}

#[test]
fn a_file_that_cannot_be_read_is_told_with_its_path() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let absent = load(Some(&folder.path().join("absent.toml")), &[]).expect_err("it is not there");
    assert!(absent.to_string().ends_with("absent.toml"), "{absent}");
    let huge = folder.path().join("huge.toml");
    std::fs::write(&huge, "# ".repeat(100_000)).expect("a file can be written");
    let refused = load(Some(&huge), &[]).expect_err("it is too large");
    let cause = std::error::Error::source(&refused).expect("it has a cause").to_string();
    assert!(cause.starts_with("200000 bytes is more than"), "{cause}");
}

#[test]
fn names_are_unique() {
    for (i, setting) in TABLE.iter().enumerate() {
        assert!(TABLE[..i].iter().all(|other| other.name != setting.name), "{}", setting.name);
    }
}

proptest! {
    #[test]
    fn no_file_makes_the_reader_panic(text in any::<String>()) {
        let _either = check(Some((Path::new("larder.toml"), &text)), [], &[]);
    }

    #[test]
    fn no_value_makes_the_reader_panic(row in 0..TABLE.len(), value in any::<String>()) {
        let text = format!("{} = {value}", TABLE[row].name);
        let _either = check(Some((Path::new("larder.toml"), &text)), [], &[]);
    }
}

#[track_caller]
fn used(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str, &str)]) -> Settings {
    match run(file, environment, flags) {
        Ok(settings) => settings,
        Err(lines) => panic!("wanted settings, got problems:\n{}", lines.join("\n")),
    }
}

#[track_caller]
fn problems(
    file: &str,
    environment: &[(&str, &str)],
    flags: &[(&str, &str, &str)],
    expected: &[&str],
) {
    let lines = run(file, environment, flags).expect_err("there are mistakes in it");
    assert_eq!(lines, expected);
}

fn run(
    file: &str,
    environment: &[(&str, &str)],
    flags: &[(&str, &str, &str)],
) -> Result<Settings, Vec<String>> {
    let environment = environment.iter().map(|(k, v)| (OsString::from(k), OsString::from(v)));
    let flags: Vec<_> =
        flags.iter().map(|&(setting, flag, value)| Flag { setting, flag, value }).collect();
    check(Some((Path::new("larder.toml"), file)), environment, &flags)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}
