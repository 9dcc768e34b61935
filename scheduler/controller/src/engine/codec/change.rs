//! What is changed later: jobs, nodes, partitions.

use muster_core::command::{JobChange, NodeChange, NodeVerb, PartitionChange, TimeChange};
use muster_model::{PartitionState, SwitchWish, Timestamp};
use muster_proto::store::v1 as rec;

use super::cluster::{load_state, state};
use super::values::{limit, load_limit, load_limit_opt, load_named, load_time, named, time};
use super::{BadRecord, Stored, boxes, list, load_list, maybe, narrow, texts};

fn text(value: &Option<Box<str>>) -> Option<String> {
    value.as_deref().map(Into::into)
}

fn items(value: &Option<Vec<Box<str>>>) -> Option<rec::Texts> {
    value.as_deref().map(|items| rec::Texts { items: texts(items) })
}

fn load_items(record: Option<rec::Texts>) -> Option<Vec<Box<str>>> {
    record.map(|texts| boxes(texts.items))
}

impl Stored for TimeChange {
    type Record = rec::TimeChange;

    fn store(&self) -> Self::Record {
        use rec::time_change::Kind;
        let kind = match *self {
            TimeChange::To(to) => Kind::To(limit(to)),
            TimeChange::ByMinutes(minutes) => Kind::ByMinutes(minutes),
            TimeChange::EndAt(at) => Kind::EndAt(at.0),
        };
        rec::TimeChange { kind: Some(kind) }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        use rec::time_change::Kind;
        Ok(match r.kind.ok_or(BadRecord::Missing("kind of time change"))? {
            Kind::To(to) => TimeChange::To(load_limit(to)?),
            Kind::ByMinutes(minutes) => TimeChange::ByMinutes(minutes),
            Kind::EndAt(at) => TimeChange::EndAt(Timestamp(at)),
        })
    }
}

impl Stored for JobChange {
    type Record = rec::JobChange;

    fn store(&self) -> Self::Record {
        let constraint =
            |c: &Option<_>| rec::MaybeConstraint { constraint: c.as_ref().map(Stored::store) };
        rec::JobChange {
            name: text(&self.name),
            comment: text(&self.comment),
            time_limit: self.time_limit.map(|t| t.store()),
            partitions: items(&self.partitions),
            account: text(&self.account),
            qos: text(&self.qos),
            nice: self.nice,
            priority: self.priority,
            dependency: self.dependency.as_ref().map(Stored::store),
            begin: time(self.begin),
            deadline: time(self.deadline),
            requeue: self.requeue,
            min_nodes: self.min_nodes,
            max_nodes: self.max_nodes,
            tasks: self.tasks,
            cpus_per_task: self.cpus_per_task,
            memory: self.memory.map(|m| m.store()),
            constraint: self.constraint.as_ref().map(constraint),
            gres: self.gres.as_deref().map(|g| rec::GresRequests { items: list(g) }),
            required_nodes: items(&self.required_nodes),
            excluded_nodes: items(&self.excluded_nodes),
            array_throttle: self.array_throttle,
            stdout: text(&self.stdout),
            stderr: text(&self.stderr),
            workdir: text(&self.workdir),
            mail_type: text(&self.mail_type),
            mail_user: text(&self.mail_user),
            wckey: text(&self.wckey),
            licenses: self.licenses.as_deref().map(|l| rec::NamedList { items: named(l) }),
            reservation: text(&self.reservation),
            admin_comment: text(&self.admin_comment),
            contiguous: self.contiguous,
            switches: self.switches.map(|wish| wish.count),
            switch_wait_seconds: self.switches.map_or(0, |wish| wish.max_wait_seconds),
        }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        Ok(JobChange {
            name: r.name.map(Into::into),
            comment: r.comment.map(Into::into),
            time_limit: maybe(r.time_limit)?,
            partitions: load_items(r.partitions),
            account: r.account.map(Into::into),
            qos: r.qos.map(Into::into),
            nice: r.nice,
            priority: r.priority,
            dependency: maybe(r.dependency)?,
            begin: load_time(r.begin),
            deadline: load_time(r.deadline),
            requeue: r.requeue,
            min_nodes: r.min_nodes,
            max_nodes: r.max_nodes,
            tasks: r.tasks,
            cpus_per_task: r.cpus_per_task,
            memory: maybe(r.memory)?,
            constraint: r.constraint.map(|c| maybe(c.constraint)).transpose()?,
            gres: r.gres.map(|g| load_list(g.items)).transpose()?,
            required_nodes: load_items(r.required_nodes),
            excluded_nodes: load_items(r.excluded_nodes),
            array_throttle: r.array_throttle,
            stdout: r.stdout.map(Into::into),
            stderr: r.stderr.map(Into::into),
            workdir: r.workdir.map(Into::into),
            mail_type: r.mail_type.map(Into::into),
            mail_user: r.mail_user.map(Into::into),
            wckey: r.wckey.map(Into::into),
            licenses: r.licenses.map(|l| load_named(l.items)).transpose()?,
            reservation: r.reservation.map(Into::into),
            admin_comment: r.admin_comment.map(Into::into),
            contiguous: r.contiguous,
            switches: r
                .switches
                .map(|count| SwitchWish { count, max_wait_seconds: r.switch_wait_seconds }),
        })
    }
}

impl Stored for NodeChange {
    type Record = rec::NodeChange;

    fn store(&self) -> Self::Record {
        use rec::node_change::Verb;
        let verb = |verb: &NodeVerb| match verb {
            NodeVerb::Drain { reason } => Verb::Drain(reason.to_string()),
            NodeVerb::Down { reason } => Verb::Down(reason.to_string()),
            NodeVerb::Resume => Verb::Resume(true),
            NodeVerb::Undrain => Verb::Undrain(true),
        };
        rec::NodeChange {
            verb: self.verb.as_ref().map(verb),
            weight: self.weight,
            features: items(&self.features),
            comment: text(&self.comment),
        }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        use rec::node_change::Verb;
        let verb = |verb| match verb {
            Verb::Drain(reason) => NodeVerb::Drain { reason: reason.into() },
            Verb::Down(reason) => NodeVerb::Down { reason: reason.into() },
            Verb::Resume(_) => NodeVerb::Resume,
            Verb::Undrain(_) => NodeVerb::Undrain,
        };
        Ok(NodeChange {
            verb: r.verb.map(verb),
            weight: r.weight,
            features: load_items(r.features),
            comment: r.comment.map(Into::into),
        })
    }
}

impl Stored for PartitionChange {
    type Record = rec::PartitionChange;

    fn store(&self) -> Self::Record {
        rec::PartitionChange {
            state: self.state.map(|s: PartitionState| state(s)),
            max_time: self.max_time.map(limit),
            default_time: self.default_time.map(limit),
            max_nodes: self.max_nodes,
            priority_tier: self.priority_tier.map(Into::into),
        }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        Ok(PartitionChange {
            state: r.state.map(load_state).transpose()?,
            max_time: load_limit_opt(r.max_time)?,
            default_time: load_limit_opt(r.default_time)?,
            max_nodes: r.max_nodes,
            priority_tier: r.priority_tier.map(|t| narrow(t, "tier")).transpose()?,
        })
    }
}
