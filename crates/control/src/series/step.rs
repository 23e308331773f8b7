//! How fine a series is, and how long each fineness is kept.

/// How much time one point stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    Minute,
    TenMinutes,
    Hour,
    Day,
}

const DAY: u64 = 24 * 60 * 60;

impl Step {
    pub(crate) const ALL: [Step; 4] = [Step::Minute, Step::TenMinutes, Step::Hour, Step::Day];

    pub const fn seconds(self) -> u64 {
        match self {
            Step::Minute => 60,
            Step::TenMinutes => 600,
            Step::Hour => 3_600,
            Step::Day => DAY,
        }
    }

    /// The longest range that is told in it; from there on the next one is.
    const fn range_max(self) -> u64 {
        match self {
            Step::Minute => DAY,
            Step::TenMinutes => 7 * DAY,
            // Three months.
            Step::Hour => 92 * DAY,
            Step::Day => u64::MAX,
        }
    }

    /// For how many seconds its rows are kept: a range that ends now, and an hour to ask for it.
    pub(crate) const fn kept_seconds(self) -> u64 {
        match self {
            Step::Minute | Step::TenMinutes | Step::Hour => self.range_max() + 3_600,
            // Three years.
            Step::Day => 3 * 366 * DAY,
        }
    }

    /// Which its rows are made of; minutes are sampled.
    pub(crate) const fn finer(self) -> Option<Step> {
        match self {
            Step::Minute => None,
            Step::TenMinutes => Some(Step::Minute),
            Step::Hour => Some(Step::TenMinutes),
            Step::Day => Some(Step::Hour),
        }
    }

    /// When the step began that this moment is in.
    pub(crate) const fn begin(self, at: u64) -> u64 {
        at - at % self.seconds()
    }

    /// In which step a range is told: the one that its length asks for, or the finest that is still
    /// kept.
    pub(crate) fn for_range(from: u64, to: u64, now: u64) -> Step {
        let length = to.saturating_sub(from);
        let kept = |step: Step| now.saturating_sub(from) <= step.kept_seconds();
        let fits = |step: &Step| length <= step.range_max() && kept(*step);
        Step::ALL.into_iter().find(fits).unwrap_or(Step::Day)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_range_is_told_in_longer_steps() {
        let now = 2_000_000_000;
        for (days, step) in [
            (1, Step::Minute),
            (2, Step::TenMinutes),
            (7, Step::TenMinutes),
            (8, Step::Hour),
            (92, Step::Hour),
            (93, Step::Day),
            (2_000, Step::Day),
        ] {
            assert_eq!(Step::for_range(now - days * DAY, now, now), step, "{days} days");
        }
    }

    #[test]
    fn what_is_no_longer_kept_finely_is_told_coarsely() {
        let now = 2_000_000_000;
        let an_hour_of = |days: u64| (now - days * DAY, now - days * DAY + 3_600);
        for (days, step) in
            [(0, Step::Minute), (3, Step::TenMinutes), (30, Step::Hour), (300, Step::Day)]
        {
            let (from, to) = an_hour_of(days);
            assert_eq!(Step::for_range(from, to, now), step, "{days} days ago");
        }
    }

    #[test]
    fn every_step_is_made_of_whole_finer_ones() {
        for step in Step::ALL {
            let finer = step.finer().map_or(1, Step::seconds);
            assert_eq!(step.seconds() % finer, 0, "{step:?}");
        }
    }
}
