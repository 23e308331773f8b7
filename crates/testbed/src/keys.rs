//! Many keys with known values, written and read in pipelines: to see which of them are still there.

use crate::connection::Connection;
use std::io;
use std::ops::Range;

/// Keys on their way at once: enough to keep a proxy busy, and their answers fit in socket buffers.
const PIPELINED: u64 = 500;
/// A write that a busy machine let time out is written again this often.
const ATTEMPTS_MAX: usize = 20;

/// Sets the keys of these numbers, again where the service was too busy. Returns how many had to be
/// written again.
///
/// # Panics
///
/// When a key cannot be written in [`ATTEMPTS_MAX`] attempts.
#[track_caller]
pub fn set(connection: &mut Connection, numbers: Range<u64>) -> u64 {
    let mut again = 0;
    let mut left: Vec<u64> = numbers.collect();
    for _ in 0..ATTEMPTS_MAX {
        let mut failed = Vec::new();
        for some in left.chunks(PIPELINED as usize) {
            let commands: String = some.iter().map(|&number| command(number)).collect();
            connection.send(commands.as_bytes());
            for &number in some {
                match connection.line().as_str() {
                    "STORED\r\n" => (),
                    error if error.starts_with("SERVER_ERROR") => failed.push(number),
                    other => panic!("key {number} was answered with {other:?}"),
                }
            }
        }
        if failed.is_empty() {
            return again;
        }
        again += failed.len() as u64;
        left = failed;
    }
    panic!("{} keys could not be written, such as {}", left.len(), left[0]);
}

/// What became of keys.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    pub hits: u64,
    pub misses: u64,
    /// Answered with an error, or not at all: their owner could not be asked.
    pub failures: u64,
}

/// How the read of one key ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Hit,
    Miss,
    /// Answered with an error, or not at all.
    Failure,
}

/// Reads the keys of these numbers one by one, in pipelines.
///
/// # Panics
///
/// When a key has another value than it was set to.
#[track_caller]
pub fn get(connection: &mut Connection, numbers: Range<u64>) -> io::Result<Found> {
    let mut found = Found::default();
    for (_, ended) in get_each(connection, numbers)? {
        match ended {
            Ended::Hit => found.hits += 1,
            Ended::Miss => found.misses += 1,
            Ended::Failure => found.failures += 1,
        }
    }
    Ok(found)
}

/// The same, and what became of each.
///
/// # Panics
///
/// When a key has another value than it was set to.
#[track_caller]
pub fn get_each(connection: &mut Connection, numbers: Range<u64>) -> io::Result<Vec<(u64, Ended)>> {
    let all: Vec<u64> = numbers.collect();
    let mut each = Vec::with_capacity(all.len());
    for some in all.chunks(PIPELINED as usize) {
        let commands: String = some.iter().map(|number| format!("get key-{number}\r\n")).collect();
        connection.try_send(commands.as_bytes())?;
        for &number in some {
            each.push((number, answer(connection, number)?.0));
        }
    }
    Ok(each)
}

/// Reads the key of this number: what became of it, and the first line of the answer.
///
/// # Panics
///
/// When the key has another value than it was set to.
#[track_caller]
pub fn get_one(connection: &mut Connection, number: u64) -> io::Result<(Ended, String)> {
    connection.try_send(format!("get key-{number}\r\n").as_bytes())?;
    answer(connection, number)
}

#[track_caller]
fn answer(connection: &mut Connection, number: u64) -> io::Result<(Ended, String)> {
    let line = whole_line(connection)?;
    let ended = if line == "END\r\n" {
        Ended::Miss
    } else if line.starts_with("SERVER_ERROR") {
        Ended::Failure
    } else {
        let (value, bytes) = (value(number), value(number).len());
        assert_eq!(line, format!("VALUE key-{number} 0 {bytes}\r\n"));
        assert_eq!(whole_line(connection)?, format!("{value}\r\n"));
        assert_eq!(whole_line(connection)?, "END\r\n");
        Ended::Hit
    };
    Ok((ended, line))
}

/// One line with its ending. Half of one, before the server closed, is no answer.
fn whole_line(connection: &mut Connection) -> io::Result<String> {
    let line = connection.try_line()?;
    if line.ends_with('\n') { Ok(line) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn command(number: u64) -> String {
    let value = value(number);
    format!("set key-{number} 0 0 {}\r\n{value}\r\n", value.len())
}

/// The value of a key; of different lengths, so that a mix-up is noticed.
pub(crate) fn value(number: u64) -> String {
    format!("{:0width$}", number, width = 10 + (number % 50) as usize)
}
