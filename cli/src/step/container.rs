//! A root of its own for the tasks: `--container-image` and its kin, as they are spelled for
//! NVIDIA's plugin.

use std::path::Path;

use muster_proto::v1::{Container, Mount};

use super::options::Asked;
use crate::submit::Fault;
use crate::submit::args::Settings;

/// Where options are looked up: srun's or sbatch's.
pub(crate) trait Lookup {
    fn value(&self, name: &str) -> Option<&str>;
    fn has(&self, name: &str) -> bool;
}

impl Lookup for Asked {
    fn value(&self, name: &str) -> Option<&str> {
        Asked::value(self, name)
    }

    fn has(&self, name: &str) -> bool {
        Asked::has(self, name)
    }
}

impl Lookup for Settings {
    fn value(&self, name: &str) -> Option<&str> {
        Settings::value(self, name)
    }

    fn has(&self, name: &str) -> bool {
        Settings::has(self, name)
    }
}

/// The container that was asked for, if one was.
pub(crate) fn read(asked: &impl Lookup, cwd: &Path) -> Result<Option<Container>, Fault> {
    let Some(image) = asked.value("container-image") else {
        let alone = ["container-mounts", "container-workdir", "container-readonly"];
        return match alone.into_iter().find(|name| asked.has(name)) {
            Some(name) => Err(Fault::Refused(format!("--{name} needs --container-image"))),
            None => Ok(None),
        };
    };
    if image.is_empty() || image.contains("://") || image.contains('#') {
        return Err(Fault::Refused(format!(
            "--container-image={image}: images are not fetched: give a directory that is a root file \
             system, or an OCI bundle"
        )));
    }
    let mounts = asked.value("container-mounts").unwrap_or_default();
    let mounts = mounts.split(',').map(str::trim).filter(|mount| !mount.is_empty());
    Ok(Some(Container {
        image: cwd.join(image).to_string_lossy().into_owned(),
        mounts: mounts.map(|text| mount(text, cwd)).collect::<Result<_, _>>()?,
        workdir: match asked.value("container-workdir") {
            Some(dir) if !dir.starts_with('/') => {
                let text = format!("--container-workdir={dir}: give an absolute path");
                return Err(Fault::Refused(text));
            }
            dir => dir.unwrap_or_default().to_owned(),
        },
        mount_home: !asked.has("no-container-mount-home"),
        read_only: asked.has("container-readonly"),
    }))
}

/// `SOURCE`, `SOURCE:TARGET` or `SOURCE:TARGET:FLAG`.
fn mount(text: &str, cwd: &Path) -> Result<Mount, Fault> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, flag) = match parts[..] {
        [source] => (source, source, "rw"),
        [source, target] => (source, target, "rw"),
        [source, target, flag] => (source, target, flag),
        _ => ("", "", ""),
    };
    if source.is_empty() || !matches!(flag, "rw" | "ro") {
        return Err(Fault::Refused(format!(
            "--container-mounts: {text:?} is not SOURCE:TARGET, with :ro or :rw behind it if need be"
        )));
    }
    let absolute = |path: &str| cwd.join(path).to_string_lossy().into_owned();
    Ok(Mount { source: absolute(source), target: absolute(target), read_only: flag == "ro" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(line: &str) -> Result<Option<Container>, Fault> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        read(&Asked::read("srun", &words).unwrap(), Path::new("/w"))
    }

    #[test]
    fn a_container_is_read_as_for_the_plugin() {
        let line = "--container-image=root --container-mounts=/data,/a:/b:ro,c:/d \
                    --no-container-mount-home cmd";
        let read = container(line).unwrap().unwrap();
        let mounts: Vec<(&str, &str, bool)> =
            read.mounts.iter().map(|m| (&*m.source, &*m.target, m.read_only)).collect();
        assert_eq!(mounts, [("/data", "/data", false), ("/a", "/b", true), ("/w/c", "/d", false)]);
        assert_eq!((read.image.as_str(), read.mount_home), ("/w/root", false));
        assert!(container("cmd").unwrap().is_none());
    }

    #[test]
    fn what_it_cannot_be_is_refused_with_what_to_give() {
        for line in [
            "--container-image=docker://ubuntu cmd",
            "--container-image=nvcr.io#nvidia/pytorch cmd",
            "--container-image=/r --container-mounts=/a:/b:slow cmd",
            "--container-image=/r --container-workdir=w cmd",
            "--container-mounts=/a:/b cmd",
        ] {
            assert!(matches!(container(line), Err(Fault::Refused(_))), "{line}");
        }
    }
}
