//! Small values: time limits, memory, generic resources, signals, exits.

use muster_model::{
    ExitStatus, GpuUsage, GresKind, GresMask, GresRequest, GresScope, MemoryRequest, SignalRequest,
    TimeLimit, Timestamp, Uid, Usage, User,
};

use super::BadField;
use crate::v1;

#[must_use]
pub fn limit_out(limit: TimeLimit) -> v1::TimeLimit {
    use v1::time_limit::Limit;
    let limit = match limit {
        TimeLimit::Limited(_) => Limit::Minutes(limit.whole_minutes().unwrap_or_default()),
        TimeLimit::Unlimited => Limit::Unlimited(true),
    };
    v1::TimeLimit { limit: Some(limit) }
}

/// `None`: the message was empty.
#[must_use]
pub fn limit_in(limit: &v1::TimeLimit) -> Option<TimeLimit> {
    use v1::time_limit::Limit;
    limit.limit.as_ref().map(|limit| match limit {
        Limit::Minutes(0) | Limit::Unlimited(_) => TimeLimit::Unlimited,
        Limit::Minutes(minutes) => TimeLimit::minutes(*minutes),
    })
}

/// 0 is "unset".
#[must_use]
pub fn time_in(at: i64) -> Option<Timestamp> {
    (at > 0).then_some(Timestamp(at))
}

#[must_use]
pub fn time_out(at: Option<Timestamp>) -> i64 {
    at.map_or(0, |at| at.0)
}

#[must_use]
pub fn memory_out(memory: MemoryRequest) -> Option<v1::Memory> {
    use v1::memory::Request;
    let request = match memory {
        MemoryRequest::Default => return None,
        MemoryRequest::PerNode(mib) => Request::PerNodeMib(mib),
        MemoryRequest::PerCpu(mib) => Request::PerCpuMib(mib),
        MemoryRequest::PerGpu(mib) => Request::PerGpuMib(mib),
    };
    Some(v1::Memory { request: Some(request) })
}

#[must_use]
pub fn memory_in(memory: Option<&v1::Memory>) -> MemoryRequest {
    use v1::memory::Request;
    match memory.and_then(|m| m.request.as_ref()) {
        None => MemoryRequest::Default,
        Some(Request::PerNodeMib(mib)) => MemoryRequest::PerNode(*mib),
        Some(Request::PerCpuMib(mib)) => MemoryRequest::PerCpu(*mib),
        Some(Request::PerGpuMib(mib)) => MemoryRequest::PerGpu(*mib),
    }
}

#[must_use]
pub fn kind_out(kind: &GresKind) -> v1::GresKind {
    v1::GresKind {
        name: kind.name.to_string(),
        of: kind.of.as_deref().unwrap_or_default().to_owned(),
    }
}

/// # Errors
/// When the name is missing or no plain word.
pub fn kind_in(kind: Option<&v1::GresKind>) -> Result<GresKind, BadField> {
    let kind = kind.ok_or_else(|| BadField::new("gres", "a kind is missing"))?;
    let plain = |text: &str| {
        let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
        text.len() <= 128 && text.chars().all(word)
    };
    if kind.name.is_empty() || !plain(&kind.name) || !plain(&kind.of) {
        return Err(BadField::new("gres", format!("invalid name {:?}", kind.name)));
    }
    Ok(GresKind::new(&kind.name, (!kind.of.is_empty()).then_some(kind.of.as_str())))
}

#[must_use]
pub fn gres_out(gres: &GresRequest) -> v1::GresRequest {
    let scope = match gres.scope {
        GresScope::Node => v1::GresScope::Node,
        GresScope::Job => v1::GresScope::Job,
        GresScope::Task => v1::GresScope::Task,
        GresScope::Socket => v1::GresScope::Socket,
    };
    v1::GresRequest { kind: Some(kind_out(&gres.kind)), count: gres.count, scope: scope as i32 }
}

/// # Errors
/// An unknown scope or an invalid kind.
pub fn gres_in(gres: &v1::GresRequest) -> Result<GresRequest, BadField> {
    let scope = match v1::GresScope::try_from(gres.scope) {
        Ok(v1::GresScope::Node) => GresScope::Node,
        Ok(v1::GresScope::Job) => GresScope::Job,
        Ok(v1::GresScope::Task) => GresScope::Task,
        Ok(v1::GresScope::Socket) => GresScope::Socket,
        Err(_) => return Err(BadField::new("gres", "unknown scope")),
    };
    Ok(GresRequest { kind: kind_in(gres.kind.as_ref())?, count: gres.count, scope })
}

#[must_use]
pub fn mask_out(mask: &GresMask) -> v1::GresMask {
    v1::GresMask { kind: Some(kind_out(&mask.kind)), mask: mask.mask, count: mask.count }
}

/// # Errors
/// An invalid kind.
pub fn mask_in(mask: &v1::GresMask) -> Result<GresMask, BadField> {
    Ok(GresMask { kind: kind_in(mask.kind.as_ref())?, mask: mask.mask, count: mask.count })
}

#[must_use]
pub fn count_out(kind: &GresKind, count: u64) -> v1::GresCount {
    v1::GresCount { kind: Some(kind_out(kind)), count }
}

#[must_use]
pub fn signal_out(signal: SignalRequest) -> v1::SignalRequest {
    v1::SignalRequest {
        signal: signal.signal,
        before_seconds: signal.before_seconds,
        batch_only: signal.batch_only,
    }
}

/// # Errors
/// A number that is no signal.
pub fn signal_in(signal: &v1::SignalRequest) -> Result<SignalRequest, BadField> {
    if !(1..=64).contains(&signal.signal) {
        return Err(BadField::new("signal", format!("{} is no signal", signal.signal)));
    }
    Ok(SignalRequest {
        signal: signal.signal,
        before_seconds: signal.before_seconds,
        batch_only: signal.batch_only,
    })
}

#[must_use]
pub fn user_out(user: &User) -> v1::User {
    v1::User { uid: user.uid.0, gid: user.gid, name: user.name.to_string() }
}

#[must_use]
pub fn user_in(user: &v1::User) -> User {
    User { uid: Uid(user.uid), gid: user.gid, name: user.name.as_str().into() }
}

#[must_use]
pub fn exit_out(exit: ExitStatus) -> v1::ExitStatus {
    v1::ExitStatus { code: exit.code.into(), signal: exit.signal.into() }
}

/// Only the low eight bits of each are kept, as `wait` does.
#[must_use]
pub fn exit_in(exit: &v1::ExitStatus) -> ExitStatus {
    ExitStatus { code: exit.code.to_le_bytes()[0], signal: exit.signal.to_le_bytes()[0] }
}

#[must_use]
pub fn usage_out(usage: Usage) -> v1::Usage {
    v1::Usage {
        user_cpu_ms: usage.user_cpu_ms,
        system_cpu_ms: usage.system_cpu_ms,
        max_rss_kib: usage.max_rss_kib,
        gpu: usage.gpu.map(|gpu| v1::GpuUsage {
            busy_ms: gpu.busy_ms,
            seen_ms: gpu.seen_ms,
            memory_mib: gpu.memory_mib,
            energy_mj: gpu.energy_mj,
        }),
    }
}

#[must_use]
pub fn usage_in(usage: &v1::Usage) -> Usage {
    Usage {
        user_cpu_ms: usage.user_cpu_ms,
        system_cpu_ms: usage.system_cpu_ms,
        max_rss_kib: usage.max_rss_kib,
        gpu: usage.gpu.map(|gpu| GpuUsage {
            busy_ms: gpu.busy_ms,
            seen_ms: gpu.seen_ms,
            memory_mib: gpu.memory_mib,
            energy_mj: gpu.energy_mj,
        }),
    }
}
