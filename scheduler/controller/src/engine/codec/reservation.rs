//! Reservations.

use muster_model::{Access, NodeId, Reservation, ReservationFlags, Timestamp, Uid};
use muster_proto::store::v1 as rec;

use super::values::{load_named, named};
use super::{BadRecord, Stored, boxes, maybe, need, texts};

impl Stored for Access {
    type Record = rec::Access;

    fn store(&self) -> Self::Record {
        rec::Access { names: texts(&self.names), deny: self.deny }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        Ok(Access { names: boxes(r.names), deny: r.deny })
    }
}

impl Stored for Reservation {
    type Record = rec::Reservation;

    fn store(&self) -> Self::Record {
        rec::Reservation {
            name: self.name.to_string(),
            nodes: self.nodes.iter().map(|node| node.0).collect(),
            partition: self.partition.as_deref().map(Into::into),
            start: self.start.0,
            end: self.end.0,
            users: Some(self.users.store()),
            accounts: Some(self.accounts.store()),
            flags: self.flags.0,
            features: self.features.as_ref().map(Stored::store),
            licenses: named(&self.licenses),
            comment: self.comment.to_string(),
            created_by: self.created_by.0,
            created_at: self.created_at.0,
        }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        Ok(Reservation {
            name: r.name.into(),
            nodes: r.nodes.into_iter().map(NodeId).collect(),
            partition: r.partition.map(Into::into),
            start: Timestamp(r.start),
            end: Timestamp(r.end),
            users: need(r.users, "users")?,
            accounts: need(r.accounts, "accounts")?,
            flags: ReservationFlags(r.flags),
            features: maybe(r.features)?,
            licenses: load_named(r.licenses)?,
            comment: r.comment.into(),
            created_by: Uid(r.created_by),
            created_at: Timestamp(r.created_at),
        })
    }
}
