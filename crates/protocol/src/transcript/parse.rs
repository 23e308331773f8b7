//! Reads transcripts.

use std::fmt;

use super::message::{Cas, Frame, Message, Piece};
use super::{Case, Exception, Step, Version};
use crate::command::{COMMANDS, Wire};

/// A line of a transcript that cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Counted from 1.
    pub line: usize,
    pub problem: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.problem)
    }
}

/// Reads the cases of one file.
pub fn parse(text: &str) -> Result<Vec<Case>, Mistake> {
    let mut locked = false;
    let mut exceptions = Vec::new();
    let mut cases: Vec<Case> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let at = |problem| Mistake { line: number, problem };
        match (line.split_once(' ').unwrap_or((line, "")), cases.last_mut()) {
            (("", _), _) if line.trim().is_empty() => (),
            (("#", _), _) => (),
            (("==", name), _) => cases.push(Case {
                name: name.to_owned(),
                locked,
                exceptions: exceptions.clone(),
                steps: Vec::new(),
            }),
            (("!", "locked"), None) => locked = true,
            (("!", directive), None) => exceptions.push(exception(directive).map_err(at)?),
            (("!", directive), Some(case)) => {
                case.exceptions.push(exception(directive).map_err(at)?);
            }
            ((mark, rest), Some(case)) => {
                case.steps.push((number, step(mark, rest).map_err(at)?));
            }
            ((_, _), None) => return Err(at("expected `== name of the case`".to_owned())),
        }
    }
    Ok(cases)
}

/// `not memcached: reason`, `not memcached < 1.6.40: reason` or `not memcached >= 1.6.40: reason`.
fn exception(directive: &str) -> Result<Exception, String> {
    let (who, reason) = directive.split_once(':').ok_or("an exception needs a reason")?;
    if reason.trim().is_empty() {
        return Err("an exception needs a reason".to_owned());
    }
    match who.split_whitespace().collect::<Vec<_>>()[..] {
        ["not", "memcached"] => Ok(Exception { from: None, before: None }),
        ["not", "memcached", "<", version] => {
            Ok(Exception { from: None, before: Some(self::version(version)?) })
        }
        ["not", "memcached", ">=", version] => {
            Ok(Exception { from: Some(self::version(version)?), before: None })
        }
        _ => Err(format!("unknown exception {who:?}")),
    }
}

fn version(text: &str) -> Result<Version, String> {
    let numbers: Result<Vec<u32>, _> = text.split('.').map(str::parse).collect();
    match numbers.as_deref() {
        Ok([major, minor, patch]) => Ok((*major, *minor, *patch)),
        Ok(_) | Err(_) => Err(format!("{text:?} is no version of three numbers")),
    }
}

fn step(mark: &str, rest: &str) -> Result<Step, String> {
    match mark {
        ">" => Ok(Step::Send(message(rest, Frame::request(0))?)),
        "<" => Ok(Step::Expect(message(rest, answer())?)),
        "<..." => Ok(Step::ExpectUntil(message(rest, answer())?)),
        ">|" => Ok(Step::Send(Message::Text(pieces(rest)?))),
        "<|" => Ok(Step::Expect(Message::Text(pieces(rest)?))),
        "<closed" => Ok(Step::Closed),
        _ => Err(format!("no line begins with {mark:?}")),
    }
}

fn answer() -> Frame {
    Frame { magic: 0x81, ..Frame::request(0) }
}

/// A frame if its first word names one, else a line.
fn message(rest: &str, frame: Frame) -> Result<Message, String> {
    let (word, fields) = rest.split_once(' ').unwrap_or((rest, ""));
    if word == "bin" {
        return self::frame(frame, fields).map(Message::Frame);
    }
    let opcode = COMMANDS.iter().find_map(|row| match row.wire {
        Wire::Binary { opcode, .. } if row.name == word => Some(opcode),
        Wire::Binary { .. } | Wire::Text | Wire::Meta => None,
    });
    match opcode {
        Some(opcode) => self::frame(Frame { opcode, ..frame }, fields).map(Message::Frame),
        None => {
            let mut line = pieces(rest)?;
            line.push(Piece::Bytes(b"\r\n".to_vec()));
            Ok(Message::Text(line))
        }
    }
}

/// `field=value`, separated by spaces; a value with spaces stands in quotes.
fn frame(mut frame: Frame, mut fields: &str) -> Result<Frame, String> {
    loop {
        fields = fields.trim_start();
        if fields.is_empty() {
            return Ok(frame);
        }
        let (name, rest) = fields.split_once('=').ok_or("a field is name=value")?;
        let (value, rest) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').ok_or("a quote is not closed")?,
            None => rest.split_once(' ').unwrap_or((rest, "")),
        };
        fields = rest;
        match name {
            "key" => frame.key = pieces(value)?,
            "value" => frame.value = pieces(value)?,
            "number" => frame.value = vec![Piece::Bytes(number(value)?.to_be_bytes().to_vec())],
            "flags" | "exptime" | "level" => {
                frame.extras.extend_from_slice(&small::<u32>(value)?.to_be_bytes());
            }
            "delta" | "initial" => {
                frame.extras.extend_from_slice(&number(value)?.to_be_bytes());
            }
            "opaque" => frame.opaque = small(value)?,
            "status" => frame.status = small(value)?,
            "opcode" => frame.opcode = small(value)?,
            "magic" => frame.magic = small(value)?,
            "key_length" => frame.key_length = Some(small(value)?),
            "extras_length" => frame.extras_length = Some(small(value)?),
            "body_length" => frame.body_length = Some(small(value)?),
            "cas" => {
                frame.cas = match pieces(value)?.as_slice() {
                    [Piece::Named(name)] => Cas::Named(name.clone()),
                    _ => Cas::Number(number(value)?),
                };
            }
            _ => return Err(format!("unknown field {name:?}")),
        }
    }
}

/// Decimal or `0x…`.
fn number(text: &str) -> Result<u64, String> {
    let read = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    read.map_err(|_| format!("{text:?} is no number"))
}

fn small<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    number(text)?.try_into().map_err(|_| format!("{text:?} is too large"))
}

/// Text with escapes and gaps.
fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        rest = &rest[character.len_utf8()..];
        match character {
            '\\' => {
                let (byte, after) = escape(rest)?;
                bytes.push(byte);
                rest = after;
            }
            '{' => {
                let (gap, after) = rest.split_once('}').ok_or("a brace is not closed")?;
                rest = after;
                match gap.split_once('*') {
                    Some((what, times)) => {
                        let times: usize = small(times)?;
                        bytes.extend_from_slice(what.repeat(times).as_bytes());
                    }
                    None => {
                        pieces.push(Piece::Bytes(std::mem::take(&mut bytes)));
                        pieces.push(match gap.strip_prefix('~') {
                            Some("") => Piece::Any,
                            Some(seconds) => Piece::LeftOf(number(seconds)?),
                            None => Piece::Named(gap.to_owned()),
                        });
                    }
                }
            }
            _ => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    pieces.push(Piece::Bytes(bytes));
    pieces.retain(|piece| *piece != Piece::Bytes(Vec::new()));
    Ok(pieces)
}

/// What stands behind a backslash: `r`, `n`, `t`, `0`, `xNN`, or a character that means itself.
fn escape(rest: &str) -> Result<(u8, &str), String> {
    let mut characters = rest.chars();
    let byte = match characters.next() {
        Some('r') => b'\r',
        Some('n') => b'\n',
        Some('t') => b'\t',
        Some('0') => 0,
        Some('x') => {
            let hex = rest.get(1..3).ok_or("\\x needs two digits")?;
            let byte = u8::from_str_radix(hex, 16).map_err(|_| "\\x needs two digits")?;
            return Ok((byte, &rest[3..]));
        }
        Some(itself @ ('\\' | '{' | '}')) => itself as u8,
        other => return Err(format!("unknown escape {other:?}")),
    };
    Ok((byte, characters.as_str()))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn mistakes_are_told_with_their_line() {
        check("> get a", "line 1: expected `== name of the case`");
        check("== x\n\n? get a", "line 3: no line begins with \"?\"");
        check("== x\n> a{b", "line 2: a brace is not closed");
        check("== x\n> a\\q", "line 2: unknown escape Some('q')");
        check("== x\n> bin_get colour=red", "line 2: unknown field \"colour\"");
        check("== x\n> bin_get opaque=red", "line 2: \"red\" is no number");
        check("== x\n! not memcached", "line 2: an exception needs a reason");
        check("== x\n! not nginx: why not", "line 2: unknown exception \"not nginx\"");
    }

    #[track_caller]
    fn check(text: &str, mistake: &str) {
        assert_eq!(parse(text).err().map(|found| found.to_string()).as_deref(), Some(mistake));
    }
}
