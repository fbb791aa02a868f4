//! Whether the newest known revision is what a client demands, and if not, whether waiting may help.

use flagstate_common::revision::Revision;

use super::FreshnessError;

/// How the newest known revision stands to a demanded one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Demand {
    /// It is that new.
    Met,
    /// It is older, in the same era.
    Early { present: Revision },
    /// The demanded era is over.
    PastEra { present: Revision },
    /// The demanded era has not begun here; a standby may still learn of it.
    FutureEra { present: Revision },
    /// No revision is known yet.
    Unknown,
}

impl Demand {
    pub(super) fn judge(demanded: Revision, present: Option<Revision>) -> Self {
        match present {
            None => Self::Unknown,
            Some(present) if demanded.era < present.era => Self::PastEra { present },
            Some(present) if demanded.era > present.era => Self::FutureEra { present },
            Some(present) if demanded > present => Self::Early { present },
            Some(_) => Self::Met,
        }
    }

    /// Whether waiting changes nothing.
    pub(super) fn is_final(self) -> bool {
        match self {
            Self::Met | Self::PastEra { .. } => true,
            Self::Early { .. } | Self::FutureEra { .. } | Self::Unknown => false,
        }
    }

    /// What it means once nobody waits any more.
    pub(super) fn into_result(self, demanded: Revision) -> Result<(), FreshnessError> {
        match self {
            Self::Met => Ok(()),
            Self::Early { present } => Err(FreshnessError::Behind {
                wanted: demanded,
                present,
            }),
            Self::PastEra { present } | Self::FutureEra { present } => {
                Err(FreshnessError::OtherEra { demanded, present })
            }
            Self::Unknown => Err(FreshnessError::Unreached),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn judges_a_demand_by_the_newest_known_revision() {
        let present: Revision = "2.5".parse().expect("revision");
        for (demanded, known, expected) in [
            ("2.5", true, Demand::Met),
            ("2.4", true, Demand::Met),
            ("2.6", true, Demand::Early { present }),
            ("1.9", true, Demand::PastEra { present }),
            ("3.0", true, Demand::FutureEra { present }),
            ("2.4", false, Demand::Unknown),
        ] {
            let judged = Demand::judge(demanded.parse().expect("revision"), known.then_some(present));
            assert_eq!(judged, expected, "{demanded}");
        }
    }
}
