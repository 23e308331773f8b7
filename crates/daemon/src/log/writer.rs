//! The queue to the thread that writes lines, so that nobody else waits for who reads them.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use super::{Format, line};

/// Lines that wait for the writer: a second of a storm at a hundred sites, and a few hundred
/// kilobytes at the very most.
const QUEUE_LINES_MAX: usize = 1024;

/// How long the end of the process waits for the queue. Longer only if stderr is stuck.
const FLUSH_WAIT: Duration = Duration::from_secs(1);

/// Takes lines in; see [`start`].
pub(super) struct Lines {
    queue: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

/// Writes what is still queued when it is dropped.
#[must_use = "lines that are queued when the process ends are lost without it"]
pub struct Guard {
    queue: SyncSender<Message>,
}

enum Message {
    Line(String),
    /// Answer when all before this is written.
    Flush(SyncSender<()>),
}

/// Starts the thread that writes lines to `out`; `format` is for what it has to say itself.
pub(super) fn start(
    out: impl Write + Send + 'static,
    format: Format,
) -> io::Result<(Lines, Guard)> {
    let (queue, messages) = sync_channel(QUEUE_LINES_MAX);
    let lost = Arc::new(AtomicU64::new(0));
    let lines = Lines { queue: queue.clone(), lost: Arc::clone(&lost) };
    thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || write(out, format, &messages, &lost))?;
    Ok((lines, Guard { queue }))
}

impl Lines {
    /// Never waits: a line that finds the queue full is lost, and counted.
    pub(super) fn send(&self, line: String) {
        if self.queue.try_send(Message::Line(line)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let (done, wait) = sync_channel(1);
        // A queue that is full now is stuck, and waiting for it would be in vain.
        if self.queue.try_send(Message::Flush(done)).is_ok() {
            // Whether it was written or is stuck, there is no more to be done.
            _ = wait.recv_timeout(FLUSH_WAIT);
        }
    }
}

/// Where a line cannot be written (disk full, pipe closed) it is dropped: there is nowhere to say so.
fn write(mut out: impl Write, format: Format, messages: &Receiver<Message>, lost: &AtomicU64) {
    for message in messages {
        match message {
            Message::Line(line) => {
                let lost = lost.swap(0, Ordering::Relaxed);
                if lost != 0 {
                    _ = out.write_all(line::lost(format, lost).as_bytes());
                }
                _ = out.write_all(line.as_bytes());
            }
            Message::Flush(done) => {
                _ = out.flush();
                _ = done.try_send(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::{Format, QUEUE_LINES_MAX, start};

    /// Takes a line only when it gets leave.
    struct Slow {
        leave: Receiver<()>,
        written: Sender<String>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            _ = self.leave.recv();
            _ = self.written.send(String::from_utf8_lossy(bytes).into_owned());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn who_logs_does_not_wait_for_who_reads() {
        let (allow, leave) = channel();
        let (written, seen) = channel();
        let (lines, guard) =
            start(Slow { leave, written }, Format::Text).expect("a thread can be started");
        // One more may be in the writer's hands.
        let sent = QUEUE_LINES_MAX + 101;
        (0..sent).for_each(|n| lines.send(format!("{n}\n")));
        drop(allow);
        drop(guard);
        drop(lines);
        let seen: Vec<String> = seen.into_iter().collect();
        let lost: usize = seen
            .iter()
            .filter_map(|line| line.trim_end().split_once("lost=")?.1.parse::<usize>().ok())
            .sum();
        let kept = seen.iter().filter(|line| !line.contains("lost=")).count();
        assert!((100..=101).contains(&lost), "{lost} lost");
        assert_eq!(kept + lost, sent);
    }
}
