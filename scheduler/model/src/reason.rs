//! Why a job waits (or ended as it did): the codes that tools know. None is invented here, since
//! launchers match on them.

use std::fmt;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// A reason code, spelled as Slurm spells it.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            #[default]
            $($(#[$doc])* $name),+
        }

        impl Reason {
            /// Every reason, in the order of their numbers on the wire and on disk (append only).
            pub const ALL: &[Reason] = &[$(Reason::$name),+];

            /// The code's text.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self { $(Reason::$name => stringify!($name)),+ }
            }
        }
    };
}

reasons! {
    None,
    /// Others come first.
    Priority,
    /// Not enough is free.
    Resources,
    Dependency,
    DependencyNeverSatisfied,
    BeginTime,
    JobHeldUser,
    JobHeldAdmin,
    JobHoldMaxRequeue,
    JobArrayTaskLimit,
    PartitionDown,
    PartitionInactive,
    PartitionNodeLimit,
    PartitionTimeLimit,
    ReqNodeNotAvail,
    NodeDown,
    BadConstraints,
    Licenses,
    Reservation,
    Prolog,
    Cleaning,
    DeadLine,
    TimeLimit,
    NonZeroExitCode,
    RaisedSignal,
    OutOfMemory,
    SystemFailure,
    JobLaunchFailure,
    QOSNotAllowed,
    InvalidAccount,
    InvalidQOS,
    AssocMaxJobsLimit,
    QOSMaxJobsPerUserLimit,
    /// The reservation it names is no more.
    ReservationDeleted,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}
