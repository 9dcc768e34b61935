//! The submitter's resource limits, as far as this node lets them be set.

use muster_proto::v1::Rlimit;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::unistd::geteuid;

/// Sets the soft limits, raising hard ones where that is allowed. A limit that cannot be had is
/// set as near as possible and noted: a job must not die of it.
pub(crate) fn apply(limits: &[Rlimit]) -> Vec<String> {
    limits.iter().filter_map(|limit| set(limit).err()).collect()
}

/// The limits to be set, (resource, soft, hard), where all of them can be had as far as is known.
pub(crate) fn wanted(limits: &[Rlimit]) -> Option<Vec<(usize, usize, usize)>> {
    let mut all = Vec::with_capacity(limits.len());
    for limit in limits {
        let resource = resource(&limit.name)?;
        let (soft, hard) = getrlimit(resource).ok()?;
        let wanted = soft_of(limit);
        match wanted <= hard {
            true if wanted == soft => {}
            true => all.push((resource as usize, wanted as usize, hard as usize)),
            false if geteuid().is_root() => {
                all.push((resource as usize, wanted as usize, wanted as usize));
            }
            false => return None,
        }
    }
    Some(all)
}

fn soft_of(limit: &Rlimit) -> u64 {
    if limit.soft == u64::MAX { RLIM_INFINITY } else { limit.soft }
}

fn set(limit: &Rlimit) -> Result<(), String> {
    let Some(resource) = resource(&limit.name) else {
        return Err(format!("RLIMIT_{} is not known here", limit.name.to_uppercase()));
    };
    let wanted = soft_of(limit);
    let refused = |e: nix::Error| {
        let (name, soft) = (limit.name.to_uppercase(), number(wanted));
        format!("Can't propagate RLIMIT_{name} of {soft} from submit host: {}", e.desc())
    };
    let (soft, hard) = getrlimit(resource).map_err(refused)?;
    if wanted == soft {
        return Ok(());
    }
    if wanted <= hard {
        return setrlimit(resource, wanted, hard).map_err(refused);
    }
    setrlimit(resource, wanted, wanted).map_err(|e| {
        let _ = setrlimit(resource, hard, hard);
        refused(e)
    })
}

fn number(limit: u64) -> String {
    if limit == RLIM_INFINITY { "unlimited".to_owned() } else { limit.to_string() }
}

fn resource(name: &str) -> Option<Resource> {
    Some(match name {
        "cpu" => Resource::RLIMIT_CPU,
        "fsize" => Resource::RLIMIT_FSIZE,
        "data" => Resource::RLIMIT_DATA,
        "stack" => Resource::RLIMIT_STACK,
        "core" => Resource::RLIMIT_CORE,
        "rss" => Resource::RLIMIT_RSS,
        "nproc" => Resource::RLIMIT_NPROC,
        "nofile" => Resource::RLIMIT_NOFILE,
        "memlock" => Resource::RLIMIT_MEMLOCK,
        "as" => Resource::RLIMIT_AS,
        _ => return None,
    })
}
