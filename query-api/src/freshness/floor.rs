//! Whether a state is new enough, and if not, whether waiting may help.

use flagstate_common::revision::Revision;

use super::FreshnessError;

/// What a state has to reach.
#[derive(Clone, Copy, Debug)]
pub(super) struct Floor {
    pub(super) answered: Option<Revision>,
    pub(super) demanded: Option<Revision>,
}

/// In what a state falls short.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shortfall {
    /// Older than an answer that was given.
    Regressed { answered: Revision },
    /// Older than what is demanded, in the same era.
    Early { demanded: Revision },
    /// The demanded era is over.
    PastEra { demanded: Revision },
    /// The demanded era has not begun here; a standby may still learn of it.
    FutureEra { demanded: Revision },
}

impl Floor {
    pub(super) fn judge(self, present: Revision) -> Result<(), Shortfall> {
        if let Some(demanded) = self.demanded {
            // An era that an answer has shown to be over stays over, whatever a lagging standby says.
            let newest_era = self
                .answered
                .map_or(present.era, |answered| answered.era.max(present.era));
            if demanded.era < newest_era {
                return Err(Shortfall::PastEra { demanded });
            }
        }
        match self {
            Self {
                answered: Some(answered),
                ..
            } if present < answered => Err(Shortfall::Regressed { answered }),
            Self {
                demanded: Some(demanded),
                ..
            } if present.era < demanded.era => Err(Shortfall::FutureEra { demanded }),
            Self {
                demanded: Some(demanded),
                ..
            } if present < demanded => Err(Shortfall::Early { demanded }),
            Self { .. } => Ok(()),
        }
    }
}

impl Shortfall {
    pub(super) fn is_final(self) -> bool {
        matches!(self, Self::PastEra { .. })
    }

    pub(super) fn into_error(self, present: Revision) -> FreshnessError {
        match self {
            Self::Regressed { answered: wanted } | Self::Early { demanded: wanted } => {
                FreshnessError::Behind { wanted, present }
            }
            Self::PastEra { demanded } | Self::FutureEra { demanded } => FreshnessError::OtherEra { demanded, present },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(text: &str) -> Revision {
        text.parse().expect("revision")
    }

    #[test]
    fn judges_states_by_what_was_answered_and_what_is_demanded() {
        use Shortfall::{Early, FutureEra, PastEra, Regressed};
        let answered = revision("2.5");
        for (answered, demanded, present, expected) in [
            (None, None, "1.0", Ok(())),
            (Some(answered), None, "2.5", Ok(())),
            (Some(answered), None, "2.6", Ok(())),
            (Some(answered), None, "3.0", Ok(())),
            (Some(answered), None, "2.4", Err(Regressed { answered })),
            (Some(answered), None, "1.9", Err(Regressed { answered })),
            (None, Some("2.5"), "2.5", Ok(())),
            (None, Some("2.5"), "2.9", Ok(())),
            (
                None,
                Some("2.5"),
                "2.4",
                Err(Early {
                    demanded: revision("2.5"),
                }),
            ),
            (
                None,
                Some("2.5"),
                "3.9",
                Err(PastEra {
                    demanded: revision("2.5"),
                }),
            ),
            (
                None,
                Some("2.5"),
                "1.9",
                Err(FutureEra {
                    demanded: revision("2.5"),
                }),
            ),
            (Some(answered), Some("2.4"), "2.4", Err(Regressed { answered })),
            (
                Some(answered),
                Some("1.4"),
                "1.4",
                Err(PastEra {
                    demanded: revision("1.4"),
                }),
            ),
            (
                Some(answered),
                Some("2.7"),
                "2.6",
                Err(Early {
                    demanded: revision("2.7"),
                }),
            ),
        ] {
            let floor = Floor {
                answered,
                demanded: demanded.map(revision),
            };
            assert_eq!(floor.judge(revision(present)), expected, "{floor:?} {present}");
        }
    }
}
