//! What finished jobs taught.

use muster_core::state::{Asked, Habit, Habits, Past};
use muster_model::{Timestamp, Uid};
use muster_proto::store::v1 as rec;

use super::{BadRecord, Stored};

impl Stored for Habits {
    type Record = rec::Habits;

    fn store(&self) -> Self::Record {
        let past = |past: &Past| rec::PastJob {
            run_seconds: past.run_seconds,
            cpus: past.asked.cpus,
            gpus: past.asked.gpus,
            limit_seconds: past.limit,
        };
        let user = |(uid, habit): (&Uid, &Habit)| rec::UserHabit {
            uid: uid.0,
            last: habit.last.0,
            past: habit.past.iter().map(past).collect(),
        };
        rec::Habits { users: self.users.iter().map(user).collect(), waits: self.waits.clone() }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        let past = |r: rec::PastJob| Past {
            run_seconds: r.run_seconds,
            asked: Asked { cpus: r.cpus, gpus: r.gpus },
            limit: r.limit_seconds,
        };
        let user = |r: rec::UserHabit| {
            let past = r.past.into_iter().map(past).collect();
            (Uid(r.uid), Habit { last: Timestamp(r.last), past })
        };
        Ok(Habits { users: r.users.into_iter().map(user).collect(), waits: r.waits })
    }
}
