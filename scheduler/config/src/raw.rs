//! The file as written. Every struct refuses keys it does not know; `read` turns serde's list of
//! expected keys into a suggestion of the nearest one.

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;

/// A fault and where it is.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) line: usize,
    pub(crate) text: String,
}

pub(crate) fn read(text: &str) -> Result<File, Fault> {
    toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = text.as_bytes()[..at].iter().filter(|b| **b == b'\n').count() + 1;
        Fault { line, text: explain(error.message()) }
    })
}

/// `unknown field `x`, expected one of `a`, `b`` becomes one sentence with the nearest key.
fn explain(message: &str) -> String {
    let Some(rest) = message.strip_prefix("unknown field `") else {
        return message.replace('\n', " ");
    };
    let mut quoted = rest.split('`').step_by(2);
    let key = quoted.next().unwrap_or_default();
    match nearest(key, quoted) {
        Some(known) => format!("unknown key {key:?}; did you mean {known:?}?"),
        None => format!("unknown key {key:?}"),
    }
}

/// The known word that is most like this one, if any is like it.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let known = known.filter(|known| !known.is_empty());
    let (distance, nearest) =
        known.map(|known| (strsim::damerau_levenshtein(word, known), known)).min()?;
    (distance <= nearest.len().max(word.len()) / 2).then_some(nearest)
}

/// A number or a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Count {
    Number(u32),
    Word(String),
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = Count;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number from 0 on, or \"all\"")
            }
            fn visit_i64<E: serde::de::Error>(self, count: i64) -> Result<Count, E> {
                let count = u32::try_from(count);
                count
                    .map(Count::Number)
                    .map_err(|_| E::custom("use a number from 0 on, or \"all\""))
            }
            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<Count, E> {
                Ok(Count::Word(word.to_owned()))
            }
        }
        from.deserialize_any(Either)
    }
}

/// An amount of memory in MiB: a number (MiB) or a text with a unit (`256G`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Mib;
        impl Visitor<'_> for Mib {
            type Value = Size;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("MiB as a number, or a size like \"256G\"")
            }
            fn visit_i64<E: serde::de::Error>(self, mib: i64) -> Result<Size, E> {
                u64::try_from(mib).map(Size).map_err(|_| E::custom("a size cannot be negative"))
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Size, E> {
                parse_size(text).map(Size).ok_or_else(|| {
                    E::custom(format!(
                        "invalid size {text:?}: use MiB, or a number with K, M, G or T"
                    ))
                })
            }
        }
        from.deserialize_any(Mib)
    }
}

fn parse_size(text: &str) -> Option<u64> {
    let upper = text.trim().to_ascii_uppercase();
    let upper = upper.strip_suffix("IB").or_else(|| upper.strip_suffix('B')).unwrap_or(&upper);
    let (digits, unit) = match upper.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => upper.split_at(at),
        None => (upper, "M"),
    };
    let number: u64 = digits.parse().ok()?;
    match unit {
        "K" => Some(number.div_ceil(1024)),
        "M" => Some(number),
        "G" => number.checked_mul(1024),
        "T" => number.checked_mul(1024 * 1024),
        _ => None,
    }
}

/// Generic resources: one word (`"auto"`), or a list of words.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gres(pub(crate) Vec<String>);

impl<'de> Deserialize<'de> for Gres {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Words;
        impl<'de> Visitor<'de> for Words {
            type Value = Gres;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"auto\", or a list like [\"gpu:h100:8\"]")
            }
            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<Gres, E> {
                Ok(Gres(vec![word.to_owned()]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Gres, A::Error> {
                let mut words = Vec::new();
                while let Some(word) = list.next_element()? {
                    words.push(word);
                }
                Ok(Gres(words))
            }
        }
        from.deserialize_any(Words)
    }
}

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    pub(crate) cluster: String,
    pub(crate) state_dir: Option<String>,
    pub(crate) run_dir: Option<String>,
    #[serde(default)]
    pub(crate) controller: Controller,
    #[serde(default)]
    pub(crate) security: Security,
    #[serde(default)]
    pub(crate) scheduler: Scheduler,
    #[serde(default)]
    pub(crate) priority: Priority,
    #[serde(default)]
    pub(crate) history: History,
    #[serde(default)]
    pub(crate) agent: Agent,
    #[serde(default)]
    pub(crate) licenses: BTreeMap<String, u32>,
    #[serde(default)]
    pub(crate) node: Vec<Node>,
    #[serde(default)]
    pub(crate) partition: Vec<Partition>,
    #[serde(default)]
    pub(crate) switch: Vec<Switch>,
    #[serde(default)]
    pub(crate) block: Vec<Block>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Switch {
    pub(crate) name: String,
    pub(crate) nodes: Option<String>,
    pub(crate) switches: Option<String>,
    pub(crate) rails: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Block {
    pub(crate) name: String,
    pub(crate) nodes: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Controller {
    pub(crate) socket: Option<String>,
    pub(crate) listen: Option<String>,
    pub(crate) address: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Security {
    pub(crate) cluster_key: Option<String>,
    pub(crate) tls_cert: Option<String>,
    pub(crate) tls_key: Option<String>,
    pub(crate) tls_ca: Option<String>,
    pub(crate) admins: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) operators: Vec<String>,
    #[serde(default)]
    pub(crate) allow_root_jobs: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scheduler {
    pub(crate) max_jobs: Option<u32>,
    pub(crate) max_array_size: Option<u32>,
    pub(crate) first_job_id: Option<u32>,
    pub(crate) min_job_age_seconds: Option<u32>,
    pub(crate) max_script_bytes: Option<u32>,
    pub(crate) max_environment_bytes: Option<u32>,
    pub(crate) requeue: Option<bool>,
    pub(crate) max_requeues: Option<u32>,
    pub(crate) requeue_delay_seconds: Option<u32>,
    pub(crate) kill_on_invalid_dependency: Option<bool>,
    pub(crate) enforce_partition_limits: Option<bool>,
    pub(crate) kill_wait_seconds: Option<u32>,
    pub(crate) interactive_step: Option<bool>,
    pub(crate) mpi_default: Option<String>,
    pub(crate) unkillable_seconds: Option<u32>,
    pub(crate) heartbeat_seconds: Option<u32>,
    pub(crate) node_timeout_seconds: Option<u32>,
    pub(crate) sample_seconds: Option<u32>,
    pub(crate) pass_interval_seconds: Option<u32>,
    pub(crate) pass_fuel: Option<u64>,
    pub(crate) pass_target_ms: Option<u32>,
    pub(crate) pass_dumps: Option<u32>,
    pub(crate) order: Option<String>,
    pub(crate) backfill: Option<String>,
    pub(crate) shadows: Option<Count>,
    pub(crate) packing: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Priority {
    pub(crate) age: Option<u32>,
    pub(crate) max_age: Option<String>,
    pub(crate) size: Option<u32>,
    pub(crate) partition: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct History {
    pub(crate) url: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Agent {
    pub(crate) spool_dir: Option<String>,
    pub(crate) cgroup: Option<String>,
    pub(crate) prolog: Option<String>,
    pub(crate) epilog: Option<String>,
    pub(crate) prolog_timeout_seconds: Option<u32>,
    pub(crate) nvml_library: Option<String>,
    pub(crate) pmix_library: Option<String>,
    pub(crate) gpu_check_seconds: Option<u32>,
    pub(crate) gpu_numbering: Option<String>,
    pub(crate) listen: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) cpus: u32,
    pub(crate) memory: Size,
    #[serde(default)]
    pub(crate) gres: Gres,
    #[serde(default)]
    pub(crate) features: Vec<String>,
    pub(crate) weight: Option<u32>,
    pub(crate) sockets: Option<u32>,
    pub(crate) cores_per_socket: Option<u32>,
    pub(crate) threads_per_core: Option<u32>,
    pub(crate) address: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Partition {
    pub(crate) name: String,
    pub(crate) nodes: Option<String>,
    #[serde(default)]
    pub(crate) features: Vec<String>,
    #[serde(default)]
    pub(crate) default: bool,
    pub(crate) state: Option<String>,
    pub(crate) max_time: Option<String>,
    pub(crate) default_time: Option<String>,
    pub(crate) min_nodes: Option<u32>,
    pub(crate) max_nodes: Option<u32>,
    pub(crate) priority_tier: Option<u16>,
    pub(crate) priority_factor: Option<u16>,
    pub(crate) default_memory_per_node: Option<Size>,
    pub(crate) default_memory_per_cpu: Option<Size>,
    pub(crate) max_memory_per_node: Option<Size>,
    #[serde(default)]
    pub(crate) allow_users: Vec<String>,
    #[serde(default)]
    pub(crate) allow_groups: Vec<String>,
    #[serde(default)]
    pub(crate) exclusive: bool,
}
