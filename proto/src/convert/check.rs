//! What the texts of a submission may contain. A newline or an escape sequence in a job's name
//! would forge lines in every listing; a NUL would cut paths short.

use muster_model::JobSpec;

use super::BadField;

/// Bytes of a name (job, account, partition, ...).
pub const MAX_NAME: usize = 1024;
/// Bytes of a path, a comment or a pattern: as long as the kernel takes paths.
pub const MAX_TEXT: usize = 4096;
/// Bytes of all script arguments, or of the submit line, together.
pub const MAX_ARGUMENTS: usize = 256 << 10;
/// Entries of any list that a user writes by hand.
pub const MAX_ENTRIES: usize = 256;

/// Refuses texts that no job may carry.
///
/// # Errors
/// The first field that holds a control character or is too long.
pub fn spec(spec: &JobSpec) -> Result<(), BadField> {
    name("job name", &spec.name)?;
    name("account", &spec.account)?;
    name("qos", &spec.qos)?;
    name("wckey", &spec.wckey)?;
    text("comment", &spec.comment)?;
    entries("partition", spec.partitions.len())?;
    for partition in &spec.partitions {
        name("partition", partition)?;
    }
    if let Some(reservation) = &spec.reservation {
        name("reservation", reservation)?;
    }
    entries("licenses", spec.licenses.len())?;
    for (license, _) in &spec.licenses {
        name("licenses", license)?;
    }
    entries("gres", spec.request.gres.len())?;
    entries("dependency", spec.dependency.terms.len() / 64)?;
    for node in spec.request.required_nodes.iter().chain(&spec.request.excluded_nodes) {
        name("node list", node)?;
    }
    launch(spec)
}

fn launch(spec: &JobSpec) -> Result<(), BadField> {
    let launch = &spec.launch;
    let patterns = [
        ("output", launch.stdout.as_deref()),
        ("error", launch.stderr.as_deref()),
        ("input", launch.stdin.as_deref()),
        ("working directory", Some(&*launch.workdir)),
        ("submit directory", Some(&*launch.submit_dir)),
        ("script path", Some(&*launch.command)),
        ("submit host", Some(&*launch.submit_host)),
        ("mail type", Some(&*launch.mail_type)),
        ("mail user", Some(&*launch.mail_user)),
    ];
    for (field, value) in patterns {
        text(field, value.unwrap_or_default())?;
    }
    if !launch.workdir.starts_with('/') {
        return Err(BadField::new("working directory", "must be an absolute path"));
    }
    let arguments: usize = spec.args.iter().map(|a| a.len() + 1).sum();
    if arguments > MAX_ARGUMENTS || spec.submit_line.len() > MAX_ARGUMENTS {
        let fault = format!("longer than {MAX_ARGUMENTS} bytes");
        return Err(BadField::new("script arguments", fault));
    }
    if spec.args.iter().any(|a| a.contains('\0')) || spec.submit_line.contains('\0') {
        return Err(BadField::new("script arguments", "a NUL character"));
    }
    entries("rlimits", launch.rlimits.len())?;
    for (limit, _) in launch.rlimits.iter() {
        name("rlimits", limit)?;
    }
    entries("options", launch.extras.len())?;
    for (option, value) in &launch.extras {
        name("options", option)?;
        text("options", value)?;
    }
    Ok(())
}

/// A short text without control characters.
///
/// # Errors
/// When it has one, or is longer than [`MAX_NAME`].
pub fn name(field: &'static str, value: &str) -> Result<(), BadField> {
    bounded(field, value, MAX_NAME)
}

/// A longer text without control characters.
///
/// # Errors
/// When it has one, or is longer than [`MAX_TEXT`].
pub fn text(field: &'static str, value: &str) -> Result<(), BadField> {
    bounded(field, value, MAX_TEXT)
}

fn bounded(field: &'static str, value: &str, most: usize) -> Result<(), BadField> {
    if value.len() > most {
        return Err(BadField::new(field, format!("longer than {most} bytes")));
    }
    match value.chars().find(|c| c.is_control()) {
        Some(c) => {
            Err(BadField::new(field, format!("a control character ({})", c.escape_default())))
        }
        None => Ok(()),
    }
}

fn entries(field: &'static str, count: usize) -> Result<(), BadField> {
    if count <= MAX_ENTRIES {
        Ok(())
    } else {
        Err(BadField::new(field, format!("more than {MAX_ENTRIES} entries")))
    }
}
