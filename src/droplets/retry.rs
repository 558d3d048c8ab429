//! What follows from an attempt.

use std::time::Duration;

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// An answer with this status.
    Answered(u16),
    TimedOut(String),
    /// No connection, or one that broke: refused, reset, ended early, no such host.
    Broken(String),
    /// It will not come to anything: an address nobody is sent to, an answer beyond the bound.
    Hopeless(String),
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Taken, and not yet done.
    Queued,
    Success,
    Error,
    Timeout,
}

impl Verdict {
    pub const ALL: [Self; 4] = [Self::Queued, Self::Success, Self::Error, Self::Timeout];

    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Queued => "queued",
            Verdict::Success => "success",
            Verdict::Error => "error",
            Verdict::Timeout => "timeout",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// The answer is the call's.
    Final(Verdict),
    Again {
        after: Duration,
    },
    /// Nothing more is tried, and there is no answer.
    Exhausted(Verdict),
}

/// How often and at which distance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// All of them, the first included.
    pub attempts: u32,
    /// After the first; it doubles with each.
    pub first_wait: Duration,
}

/// Waits do not grow beyond this.
const LONGEST_WAIT: Duration = Duration::from_secs(64);

impl Plan {
    /// After the attempt of this number, counted from 1.
    pub fn next(&self, attempt: u32, ended: &Ended) -> Next {
        let failed = match ended {
            Ended::Answered(200..=299) => return Next::Final(Verdict::Success),
            Ended::Answered(status) if *status < 500 => return Next::Final(Verdict::Error),
            Ended::Hopeless(_) => return Next::Exhausted(Verdict::Error),
            Ended::TimedOut(_) => Verdict::Timeout,
            Ended::Answered(_) | Ended::Broken(_) => Verdict::Error,
        };
        if attempt >= self.attempts {
            return Next::Exhausted(failed);
        }
        let doubled = 1u32.checked_shl(attempt.saturating_sub(1).min(16)).unwrap_or(1);
        Next::Again { after: self.first_wait.saturating_mul(doubled).min(LONGEST_WAIT) }
    }
}

/// What a record says of an attempt without an answer.
pub fn message(ended: &Ended) -> String {
    match ended {
        Ended::Answered(status) => format!("HTTP {status}: Server error"),
        Ended::TimedOut(what) => format!("ReadTimeout: {what}"),
        Ended::Broken(what) => format!("ConnectError: {what}"),
        Ended::Hopeless(what) => format!("UnexpectedError: {what}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: Plan = Plan { attempts: 3, first_wait: Duration::from_secs(1) };

    #[test]
    fn failures_are_tried_again_after_one_two_and_four_seconds() {
        let plan = Plan { attempts: 4, ..PLAN };
        for ended in [Ended::Answered(500), Ended::TimedOut(String::new()), Ended::Broken(String::new())] {
            let waits = [1, 2, 3].map(|attempt| plan.next(attempt, &ended));
            assert_eq!(waits, [1, 2, 4].map(|s| Next::Again { after: Duration::from_secs(s) }), "{ended:?}");
        }
        assert_eq!(plan.next(4, &Ended::Answered(503)), Next::Exhausted(Verdict::Error));
        assert_eq!(plan.next(4, &Ended::Broken(String::new())), Next::Exhausted(Verdict::Error));
        assert_eq!(plan.next(4, &Ended::TimedOut(String::new())), Next::Exhausted(Verdict::Timeout));
        let long = Plan { attempts: 99, ..PLAN };
        assert_eq!(long.next(98, &Ended::Answered(500)), Next::Again { after: LONGEST_WAIT });
    }

    #[test]
    fn an_answer_below_500_is_final() {
        for (status, verdict) in
            [(200, Verdict::Success), (204, Verdict::Success), (302, Verdict::Error), (404, Verdict::Error)]
        {
            assert_eq!(PLAN.next(1, &Ended::Answered(status)), Next::Final(verdict), "{status}");
        }
        assert_eq!(PLAN.next(1, &Ended::Hopeless(String::new())), Next::Exhausted(Verdict::Error));
    }
}
