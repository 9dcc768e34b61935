//! `scontrol show ENTITY [NAME]`.

use std::collections::BTreeMap;

use muster_model::Hostlist;
use muster_proto::v1;
use tonic::Response;

use super::{Manner, PROGRAM, failed, job, node, partition, reservation};
use crate::connect::{Api, CallError, Client};
use crate::exit;
use crate::query::json::{self, About};
use crate::query::pick::Pick;
use crate::query::states;
use crate::query::surroundings::Surroundings;
use crate::verbs::network;

/// What can be shown.
const ENTITIES: &[&str] = &[
    "config",
    "hostlist",
    "hostlistsorted",
    "hostnames",
    "jobs",
    "licenses",
    "nodes",
    "partitions",
    "reservations",
    "steps",
    "topology",
];

/// Slurm's other entities, each with the reason why not.
const REFUSED: &[(&str, &str)] = &[
    ("aliases", "use scontrol show node"),
    ("assoc_mgr", "accounts are not kept yet"),
    ("bbstat", "there are no burst buffers"),
    ("burstbuffer", "there are no burst buffers"),
    ("daemons", "use scontrol ping"),
    ("dwstat", "there are no burst buffers"),
    ("federation", "there are no federations"),
    ("slurmd", "use scontrol show node"),
    ("topoconf", "use scontrol show topology or muster topology"),
];

/// The verb.
pub(super) fn show(words: &[String], manner: Manner, here: &Surroundings) -> i32 {
    let Some((entity, rest)) = words.split_first() else {
        exit::error(PROGRAM, "show what? (job, node, partition, config, step, hostnames, ...)");
        return exit::FAILED;
    };
    // `show job=12` is `show job 12`.
    let (entity, first) = match entity.split_once('=') {
        Some((entity, name)) => (entity, Some(name)),
        None => (entity.as_str(), rest.first().map(String::as_str)),
    };
    let found = match find(entity) {
        Ok(found) => found,
        Err(fault) => {
            eprintln!("{fault}");
            return exit::FAILED;
        }
    };
    match found {
        "hostlist" | "hostlistsorted" | "hostnames" => hosts(found, first, here),
        "config" => config(here),
        "jobs" => jobs(first, manner, here),
        "steps" => steps(first, manner, here),
        "nodes" => nodes(first, manner, here),
        "partitions" => partitions(first, manner, here),
        "licenses" => licenses(first, manner),
        "topology" => topology(first),
        _ => reservations(first, manner, here),
    }
}

fn find(word: &str) -> Result<&'static str, String> {
    let lower = word.to_ascii_lowercase();
    let all = || ENTITIES.iter().copied().chain(REFUSED.iter().map(|(name, _)| *name));
    let exact = all().find(|name| *name == lower || name.strip_suffix('s') == Some(lower.as_str()));
    let name = exact.or_else(|| {
        let mut starting = all().filter(|name| !lower.is_empty() && name.starts_with(&lower));
        starting.next().filter(|_| starting.next().is_none())
    });
    let name = name.ok_or_else(|| format!("invalid entity:{word} for keyword:show"))?;
    match REFUSED.iter().find(|(refused, _)| *refused == name) {
        Some((_, why)) => Err(format!("{PROGRAM}: error: show {name} is not supported: {why}")),
        None => Ok(name),
    }
}

/// Host expressions need no controller.
fn hosts(what: &str, text: Option<&str>, here: &Surroundings) -> i32 {
    let Some(text) = text.or_else(|| here.variable("SLURM_JOB_NODELIST")) else {
        exit::error(PROGRAM, "give a host list (SLURM_JOB_NODELIST is not set)");
        return exit::FAILED;
    };
    let list = match Hostlist::parse(text) {
        Ok(list) => list,
        Err(fault) => {
            exit::error(PROGRAM, &fault.to_string());
            return exit::FAILED;
        }
    };
    exit::print(&match what {
        "hostnames" => list.0.iter().map(|host| format!("{host}\n")).collect(),
        "hostlistsorted" => format!("{}\n", list.sorted()),
        _ => format!("{list}\n"),
    });
    exit::OK
}

fn client(lead: &str) -> Result<Client, i32> {
    super::super::open(PROGRAM, lead)
}

/// Runs a question and prints its answer.
fn answered(lead: &str, ask: impl FnOnce(&mut Client) -> Result<(String, i32), CallError>) -> i32 {
    let mut client = match client(lead) {
        Ok(client) => client,
        Err(code) => return code,
    };
    match ask(&mut client) {
        Ok((text, code)) => {
            exit::print(&text);
            code
        }
        Err(error) => failed(lead, &error),
    }
}

fn about<'a>(cluster: &'a str, here: &'a Surroundings) -> About<'a> {
    About { command: PROGRAM, cluster, here }
}

fn jobs_request(text: Option<&str>) -> Result<v1::ListJobsRequest, String> {
    let picks = text.map(Pick::list).transpose()?.unwrap_or_default();
    Ok(v1::ListJobsRequest {
        jobs: picks.iter().map(Pick::reference).collect(),
        all_states: true,
        with_details: true,
        ..v1::ListJobsRequest::default()
    })
}

fn jobs(text: Option<&str>, manner: Manner, here: &Surroundings) -> i32 {
    let Ok(request) = jobs_request(text) else {
        eprintln!("scontrol_print_job error: Invalid job id specified");
        return exit::FAILED;
    };
    answered("slurm_load_jobs", |client| {
        let jobs = super::super::list_jobs(client, &request)?;
        if manner.json {
            let cluster = super::super::ping(client)?.cluster;
            return Ok((json::jobs(&jobs, &about(&cluster, here)), exit::OK));
        }
        if jobs.is_empty() && text.is_none() {
            return Ok(("No jobs in the system\n".to_owned(), exit::OK));
        }
        if jobs.is_empty() {
            eprintln!("slurm_load_jobs error: Invalid job id specified");
            return Ok((String::new(), exit::FAILED));
        }
        Ok((jobs.iter().map(|j| job::show(j, manner, here)).collect(), exit::OK))
    })
}

fn steps(text: Option<&str>, manner: Manner, here: &Surroundings) -> i32 {
    let Ok(request) = jobs_request(text) else {
        eprintln!("scontrol_print_step error: Invalid job id specified");
        return exit::FAILED;
    };
    answered("slurm_get_job_steps", |client| {
        let jobs = super::super::list_jobs(client, &request)?;
        let running = jobs
            .iter()
            .filter(|j| states::active(j.state()) && j.state() != v1::JobState::Configuring);
        let asked = v1::StepsRequest { jobs: request.jobs.clone() };
        let steps = client.call(async |mut api: Api| {
            api.query.list_steps(asked.clone()).await.map(|reply| reply.into_inner().steps)
        })?;
        let mut text = String::new();
        for job in running {
            let mine = steps.iter().filter(|step| step.job == job.id);
            mine.for_each(|step| text.push_str(&job::show_srun(job, step, manner, here)));
            text.push_str(&job::show_step(job, true, manner, here));
            text.push_str(&job::show_step(job, false, manner, here));
        }
        if text.is_empty() {
            return Ok(("No job steps in the system\n".to_owned(), exit::OK));
        }
        Ok((text, exit::OK))
    })
}

/// The records that were asked for by name, and a line for each name that is nobody's.
fn chosen<'a, T>(
    all: &'a [T],
    wanted: Option<&str>,
    what: &str,
    name_of: fn(&T) -> &str,
) -> Result<(Vec<&'a T>, String), String> {
    let Some(text) = wanted.filter(|text| !text.eq_ignore_ascii_case("ALL")) else {
        return Ok((all.iter().collect(), String::new()));
    };
    let by_name: BTreeMap<&str, &T> = all.iter().map(|item| (name_of(item), item)).collect();
    let (mut found, mut missing) = (Vec::new(), String::new());
    for name in Hostlist::parse(text).map_err(|fault| fault.to_string())?.0 {
        match by_name.get(name.as_str()) {
            Some(item) => found.push(*item),
            None => missing.push_str(&format!("{what} {name} not found\n")),
        }
    }
    Ok((found, missing))
}

fn nodes(text: Option<&str>, manner: Manner, here: &Surroundings) -> i32 {
    answered("slurm_load_node", |client| {
        let nodes = client.call(async |mut api: Api| {
            let request = v1::ListNodesRequest::default();
            let mut pages = api.query.list_nodes(request).await?.into_inner();
            let mut nodes = Vec::new();
            while let Some(page) = pages.message().await? {
                nodes.extend(page.nodes);
            }
            Ok(nodes)
        })?;
        let (found, missing) = match chosen(&nodes, text, "Node", |n| &n.name) {
            Ok(chosen) => chosen,
            Err(fault) => return Ok((format!("{fault}\n"), exit::FAILED)),
        };
        let code = if missing.is_empty() { exit::OK } else { exit::FAILED };
        if manner.json {
            let found: Vec<v1::Node> = found.into_iter().cloned().collect();
            let cluster = super::super::ping(client)?.cluster;
            return Ok((json::nodes(&found, &about(&cluster, here)), code));
        }
        let shown: String = found.iter().map(|n| node::show(n, manner, here)).collect();
        Ok((shown + &missing, code))
    })
}

fn partitions(text: Option<&str>, manner: Manner, here: &Surroundings) -> i32 {
    answered("slurm_load_partitions", |client| {
        let all = client.call(async |mut api: Api| {
            let request = v1::ListPartitionsRequest {};
            api.query.list_partitions(request).await.map(Response::into_inner)
        })?;
        let (found, missing) = match chosen(&all.partitions, text, "Partition", |p| &p.name) {
            Ok(chosen) => chosen,
            Err(fault) => return Ok((format!("{fault}\n"), exit::FAILED)),
        };
        let code = if missing.is_empty() { exit::OK } else { exit::FAILED };
        if manner.json {
            let found: Vec<v1::Partition> = found.into_iter().cloned().collect();
            let cluster = super::super::ping(client)?.cluster;
            return Ok((json::partitions(&found, &about(&cluster, here)), code));
        }
        let shown: String = found.iter().map(|p| partition::show(p, manner)).collect();
        Ok((shown + &missing, code))
    })
}

fn reservations(wanted: Option<&str>, manner: Manner, here: &Surroundings) -> i32 {
    answered("slurm_load_reservations", |client| {
        let mut all = client.call(async |mut api: Api| {
            let reply = api.query.list_reservations(v1::ListReservationsRequest {}).await?;
            Ok(reply.into_inner().reservations)
        })?;
        if let Some(name) = wanted {
            all.retain(|r| r.name == name);
        }
        let missing = wanted.filter(|_| all.is_empty());
        let code = if missing.is_some() { exit::FAILED } else { exit::OK };
        if manner.json {
            let cluster = super::super::ping(client)?.cluster;
            return Ok((json::reservations(&all, &about(&cluster, here)), code));
        }
        let shown: String = all.iter().map(|r| reservation::show(r, manner, here)).collect();
        Ok(match missing {
            Some(name) => (format!("Reservation {name} not found\n"), code),
            None if shown.is_empty() => ("No reservations in the system\n".to_owned(), code),
            None => (shown, code),
        })
    })
}

fn topology(wanted: Option<&str>) -> i32 {
    answered("slurm_load_topo", |client| {
        let shape = network::load(client)?;
        Ok(match network::scontrol(&shape, wanted) {
            Ok(text) => (text, exit::OK),
            Err(fault) => (fault, exit::FAILED),
        })
    })
}

fn entries(client: &mut Client) -> Result<Vec<v1::Pair>, CallError> {
    client.call(async |mut api: Api| {
        let reply = api.query.show_config(v1::ShowConfigRequest {}).await?;
        Ok(reply.into_inner().entries)
    })
}

fn config(here: &Surroundings) -> i32 {
    answered("slurm_load_ctl_conf", |client| {
        let head = format!("Configuration data as of {}\n", here.time(here.now, ""));
        let lines = entries(client)?;
        let line = |pair: &v1::Pair| format!("{:<23} = {}\n", pair.name, pair.value);
        Ok((head + &lines.iter().map(line).collect::<String>(), exit::OK))
    })
}

fn licenses(wanted: Option<&str>, manner: Manner) -> i32 {
    answered("slurm_load_licenses", |client| {
        let entries = entries(client)?;
        let list = entries.iter().find(|pair| pair.name == "Licenses").map(|pair| &pair.value);
        let held = super::super::list_jobs(client, &v1::ListJobsRequest::default())?;
        let used = used_licenses(&held);
        let items = list.into_iter().flat_map(|text| text.split(','));
        let mut text = String::new();
        for (name, total) in items.filter_map(|item| item.split_once(':')) {
            if wanted.is_some_and(|w| w != name) {
                continue;
            }
            let total: u32 = total.parse().unwrap_or(0);
            let used = used.get(name).copied().unwrap_or(0);
            let lines = [
                format!("LicenseName={name}"),
                format!(
                    " Total={total} Used={used} Free={} Reserved=0 Remote=no",
                    total.saturating_sub(used)
                ),
            ];
            text.push_str(&super::record(&lines, manner.oneliner).replace("\n\n", "\n"));
        }
        if text.is_empty() {
            text.push_str("No licenses configured in Slurm.\n");
        }
        Ok((text, exit::OK))
    })
}

fn used_licenses(jobs: &[v1::Job]) -> BTreeMap<String, u32> {
    let mut used = BTreeMap::new();
    for job in jobs.iter().filter(|j| states::active(j.state())) {
        for license in job.spec.iter().flat_map(|spec| &spec.licenses) {
            *used.entry(license.name.clone()).or_default() += license.count;
        }
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entities_may_be_shortened_and_put_in_the_plural() {
        for (word, entity) in [
            ("job", "jobs"),
            ("jobs", "jobs"),
            ("NODE", "nodes"),
            ("part", "partitions"),
            ("partition", "partitions"),
            ("lic", "licenses"),
            ("res", "reservations"),
            ("step", "steps"),
            ("hostnames", "hostnames"),
            ("hostlist", "hostlist"),
            ("hostn", "hostnames"),
            ("conf", "config"),
            ("n", "nodes"),
        ] {
            assert_eq!(find(word), Ok(entity), "{word}");
        }
        assert_eq!(find("foo"), Err("invalid entity:foo for keyword:show".to_owned()));
        assert_eq!(find("topology"), Ok("topology"));
        assert!(find("topoconf").expect_err("no files").contains("not supported"));
        assert!(find("host").is_err(), "two entities begin so");
    }

    #[test]
    fn names_that_are_nobodys_are_said() {
        let node = |name: &str| v1::Node { name: name.to_owned(), ..v1::Node::default() };
        let nodes = [node("n1"), node("n2")];
        let (found, missing) = chosen(&nodes, Some("n[2-3]"), "Node", |n| &n.name).expect("a list");
        assert_eq!(found.len(), 1);
        assert_eq!(missing, "Node n3 not found\n");
        assert!(chosen(&nodes, Some("n[1-"), "Node", |n| &n.name).is_err());
    }
}
