//! Figures with their bars and targets, and how they are measured.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// All figures of a run.
#[derive(Default)]
pub(crate) struct Report {
    lines: Vec<String>,
}

impl Report {
    /// Notes one figure. `bar` is what exists today, `target` what was promised.
    pub(crate) fn figure(
        &mut self,
        what: &str,
        figure: String,
        bar: &str,
        target: &str,
        met: bool,
    ) {
        let met = if met { "yes" } else { "no" };
        let line = format!("| {what} | {figure} | {bar} | {target} | {met} |");
        println!("{line}");
        self.lines.push(line);
    }

    pub(crate) fn print(&self) {
        println!("\n| what | figure | bar | target | met |\n|---|---|---|---|---|");
        self.lines.iter().for_each(|line| println!("{line}"));
    }
}

/// CPU time this thread has used so far.
pub(crate) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Memory of this process that is in RAM, in bytes.
pub(crate) fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.expect("Linux tells a process's resident pages") * 4_096
}

pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
