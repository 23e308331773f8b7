//! Alerts of a cache: when one is raised, and in what words. Pure: told what was measured.
//!
//! ```text
//!             value crosses the threshold          value is back by a margin
//!   quiet ──────────────────────────────▶ raised ──────────────────────────────▶ quiet
//!            one message                            no message
//! ```

use tenancy::id::CacheId;
use tenancy::secret::Secret;

use crate::series::Point;
use crate::series::processed::ratio;
use crate::series::sample::Figure;

/// Over how long a hit rate is measured: a minute in which an application warms up is no alarm.
pub(crate) const HIT_RATE_SECONDS: u64 = 600;
/// Lookups in that time below which a hit rate means nothing.
const LOOKUPS_MIN: u64 = 100;
/// How far a value must be back before it can cross again, in percent of all.
const MARGIN: f64 = 1.0;
/// Longest description in bytes.
pub(crate) const DESCRIPTION_BYTES_MAX: usize = 500;
/// Longest e-mail address in bytes (RFC 5321, 4.5.3.1.3, less the brackets).
pub(crate) const EMAIL_BYTES_MAX: usize = 254;
/// Longest name of a Slack channel, with its sign.
pub(crate) const CHANNEL_BYTES_MAX: usize = 81;

/// Why an alert or a delivery cannot be as its owner wants it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WrongWish {
    #[error("an alert looks at hit_rate or memory_usage")]
    Trigger,
    #[error("a threshold is a percentage from 0 to 100")]
    Threshold,
    #[error("a description is at most {max} bytes without line breaks", max = DESCRIPTION_BYTES_MAX)]
    Description,
    #[error("this is no e-mail address")]
    Email,
    #[error("the URL of a Slack webhook begins with {prefix}")]
    SlackUrl { prefix: String },
    #[error("the URL of a Slack webhook is 16 to 128 printable characters")]
    SlackUrlLength,
    #[error("this is no name of a Slack channel")]
    SlackChannel,
}

/// What an alert looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// Raised below the threshold.
    HitRate,
    /// Raised from the threshold on.
    MemoryUsage,
}

impl Trigger {
    pub(crate) const ALL: [Trigger; 2] = [Trigger::HitRate, Trigger::MemoryUsage];

    pub const fn name(self) -> &'static str {
        match self {
            Trigger::HitRate => "hit_rate",
            Trigger::MemoryUsage => "memory_usage",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Trigger::ALL.into_iter().find(|one| one.name() == name)
    }

    pub(crate) const fn words(self) -> &'static str {
        match self {
            Trigger::HitRate => "hit rate",
            Trigger::MemoryUsage => "memory usage",
        }
    }

    /// The value in percent over the last minutes; `None` when there was too little to measure.
    pub(crate) fn measure(self, points: &[Point], limit_bytes: u64) -> Option<f64> {
        let percent = |ratio: f64| ratio * 100.0;
        match self {
            Trigger::HitRate => {
                let sum = |figure| -> u64 { points.iter().map(|it| it.sample.get(figure)).sum() };
                let (hits, misses) = (sum(Figure::GetHits), sum(Figure::GetMisses));
                (hits + misses >= LOOKUPS_MIN).then(|| ratio(hits, hits + misses))?.map(percent)
            }
            Trigger::MemoryUsage => {
                let bytes = points.last()?.sample.get(Figure::Bytes);
                ratio(bytes, limit_bytes).map(percent)
            }
        }
    }
}

/// What an owner wants to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertWish {
    pub trigger: Trigger,
    /// Percent, 0 to 100.
    pub threshold: u8,
    /// Which delivery of the same cache takes the message.
    pub delivery: u64,
    /// In the owner's own words; at most [`DESCRIPTION_BYTES_MAX`] without control characters.
    pub description: String,
    pub enabled: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    pub id: u64,
    pub cache: CacheId,
    pub wish: AlertWish,
    /// The value is beyond the threshold, and that was told.
    pub raised: bool,
}

/// Where messages of a cache go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub id: u64,
    pub cache: CacheId,
    pub way: Way,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    Email {
        address: String,
    },
    /// To an incoming webhook; whoever has its URL can write there.
    Slack {
        url: Secret,
        channel: String,
    },
}

impl Way {
    pub(crate) fn email(address: String) -> Result<Self, WrongWish> {
        if address.len() > EMAIL_BYTES_MAX || address.parse::<lettre::Address>().is_err() {
            return Err(WrongWish::Email);
        }
        Ok(Way::Email { address })
    }

    /// `prefix` is how every URL must begin: else anyone with a cache could have this machine call whom
    /// he likes.
    pub(crate) fn slack(url: &str, channel: String, prefix: &str) -> Result<Self, WrongWish> {
        if !url.starts_with(prefix) || url.parse::<axum::http::Uri>().is_err() {
            return Err(WrongWish::SlackUrl { prefix: prefix.to_owned() });
        }
        let plain = |c: char| !c.is_control() && !c.is_whitespace();
        if channel.len() > CHANNEL_BYTES_MAX || !channel.chars().all(plain) {
            return Err(WrongWish::SlackChannel);
        }
        // Sealed as passwords are, and so as long as they may be, which those of Slack are well below.
        let url = Secret::parse(url).map_err(|_| WrongWish::SlackUrlLength)?;
        Ok(Way::Slack { url, channel })
    }
}

/// What a new value means for an alert.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Verdict {
    /// Nothing is new.
    Same,
    Raise {
        percent: f64,
    },
    Quiet,
}

impl Alert {
    pub(crate) fn judge(&self, value: Option<f64>) -> Verdict {
        let (Some(percent), threshold) = (value, f64::from(self.wish.threshold)) else {
            return Verdict::Same;
        };
        let (is_beyond, is_back) = match self.wish.trigger {
            Trigger::HitRate => (percent < threshold, percent >= (threshold + MARGIN).min(100.0)),
            Trigger::MemoryUsage => (percent >= threshold, percent < threshold - MARGIN),
        };
        match self.raised {
            false if is_beyond => Verdict::Raise { percent },
            true if is_back => Verdict::Quiet,
            true | false => Verdict::Same,
        }
    }
}

/// A message, as it is kept in the outbox.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Message {
    pub(crate) subject: String,
    pub(crate) text: String,
}

impl AlertWish {
    /// Percent as people say them.
    pub(crate) fn threshold_of(percent: i64) -> Result<u8, WrongWish> {
        let fits = (0..=100).contains(&percent);
        u8::try_from(percent).ok().filter(|_| fits).ok_or(WrongWish::Threshold)
    }

    pub(crate) fn description_of(text: String) -> Result<String, WrongWish> {
        if text.len() > DESCRIPTION_BYTES_MAX || text.chars().any(char::is_control) {
            return Err(WrongWish::Description);
        }
        Ok(text)
    }

    /// When it is raised, such as `hit rate is below 50 %`.
    pub(crate) fn rule(&self) -> String {
        let side = match self.trigger {
            Trigger::HitRate => "below",
            Trigger::MemoryUsage => "at or above",
        };
        format!("{} is {side} {} %", self.trigger.words(), self.threshold)
    }

    /// `percent` is the value that raised it; without one it is a try.
    pub(crate) fn message(&self, cache: &str, percent: Option<f64>) -> Message {
        let what = self.trigger.words();
        let rule = format!("alert when the {}", self.rule());
        let subject = match percent {
            Some(percent) => format!("Larder: {what} of cache {cache} is {percent:.1} %"),
            None => format!("Larder: this is how an alert of cache {cache} arrives"),
        };
        let text = match self.description.as_str() {
            "" => format!("{subject} ({rule})"),
            description => format!("{subject} ({rule}): {description}"),
        };
        Message { subject, text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::sample::Sample;

    fn alert(trigger: Trigger, threshold: u8, raised: bool) -> Alert {
        let description = "call Ann".to_owned();
        let wish = AlertWish { trigger, threshold, delivery: 1, description, enabled: true };
        Alert { id: 1, cache: CacheId::new(1), wish, raised }
    }

    /// Feeds values one after the other, and says which of them raised the alert.
    fn raised_by(trigger: Trigger, threshold: u8, values: &[f64]) -> Vec<f64> {
        let mut alert = alert(trigger, threshold, false);
        let mut raised = Vec::new();
        for value in values {
            match alert.judge(Some(*value)) {
                Verdict::Same => (),
                Verdict::Quiet => alert.raised = false,
                Verdict::Raise { percent } => {
                    alert.raised = true;
                    raised.push(percent);
                }
            }
        }
        raised
    }

    #[test]
    fn an_alert_is_raised_once_per_crossing() {
        let values = [90.0, 49.9, 30.0, 50.5, 49.0, 51.0, 80.0, 20.0, 20.0];
        assert_eq!(raised_by(Trigger::HitRate, 50, &values), [49.9, 20.0]);
        let values = [10.0, 80.0, 95.0, 79.5, 80.0, 78.9, 81.0];
        assert_eq!(raised_by(Trigger::MemoryUsage, 80, &values), [80.0, 81.0]);
    }

    #[test]
    fn the_ends_of_the_scale_can_be_left_again() {
        assert_eq!(raised_by(Trigger::HitRate, 100, &[99.9, 100.0, 99.0]), [99.9, 99.0]);
        assert_eq!(raised_by(Trigger::HitRate, 0, &[0.0]), [0.0; 0]);
        assert_eq!(raised_by(Trigger::MemoryUsage, 100, &[100.0, 98.0, 100.0]), [100.0, 100.0]);
    }

    #[test]
    fn too_little_is_no_news() {
        assert_eq!(alert(Trigger::HitRate, 50, true).judge(None), Verdict::Same);
        let point = |hits, misses| {
            let mut sample = Sample::default();
            sample.set(Figure::GetHits, hits);
            sample.set(Figure::GetMisses, misses);
            Point { at: 0, sample }
        };
        assert_eq!(Trigger::HitRate.measure(&[point(1, 98)], 1), None);
        assert_eq!(Trigger::HitRate.measure(&[point(10, 40), point(15, 35)], 1), Some(25.0));
        assert_eq!(Trigger::MemoryUsage.measure(&[], 1), None);
    }

    #[test]
    fn a_message_says_what_and_why() {
        let message = alert(Trigger::HitRate, 50, false).wish.message("shop", Some(42.123));
        assert_eq!(message.subject, "Larder: hit rate of cache shop is 42.1 %");
        let text = "Larder: hit rate of cache shop is 42.1 % (alert when the hit rate is below 50 %): call Ann";
        assert_eq!(message.text, text);
    }
}
