//! The root file system of a batch script, as a job's extras carry it: in words of the options that
//! asked for it.

use crate::v1::{Container, Mount, Pair};

const IMAGE: &str = "container-image";
const MOUNTS: &str = "container-mounts";
const WORKDIR: &str = "container-workdir";
const READ_ONLY: &str = "container-readonly";
const NO_HOME: &str = "no-container-mount-home";

impl Container {
    /// As extras.
    #[must_use]
    pub fn extras(&self) -> Vec<Pair> {
        let mount = |mount: &Mount| {
            let access = if mount.read_only { "ro" } else { "rw" };
            format!("{}:{}:{access}", mount.source, mount.target)
        };
        let mounts: Vec<String> = self.mounts.iter().map(mount).collect();
        let flag = |set: bool| if set { "1".to_owned() } else { String::new() };
        [
            (IMAGE, self.image.clone()),
            (MOUNTS, mounts.join(",")),
            (WORKDIR, self.workdir.clone()),
            (READ_ONLY, flag(self.read_only)),
            (NO_HOME, flag(!self.mount_home)),
        ]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| Pair { name: name.to_owned(), value })
        .collect()
    }

    /// The one among a job's extras.
    #[must_use]
    pub fn of_extras(extras: &[Pair]) -> Option<Container> {
        let value = |name: &str| extras.iter().find(|p| p.name == name).map(|p| p.value.as_str());
        let mount = |text: &str| {
            let mut parts = text.splitn(3, ':');
            let source = parts.next().unwrap_or_default();
            let target = parts.next().unwrap_or(source);
            let read_only = parts.next() == Some("ro");
            Mount { source: source.to_owned(), target: target.to_owned(), read_only }
        };
        let mounts = value(MOUNTS).unwrap_or_default().split(',').filter(|text| !text.is_empty());
        Some(Container {
            image: value(IMAGE)?.to_owned(),
            mounts: mounts.map(mount).collect(),
            workdir: value(WORKDIR).unwrap_or_default().to_owned(),
            mount_home: value(NO_HOME).is_none(),
            read_only: value(READ_ONLY).is_some(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_in_extras_what_it_was() {
        let mount = |source: &str, target: &str, read_only| Mount {
            source: source.into(),
            target: target.into(),
            read_only,
        };
        let plain = Container { image: "/r".into(), mount_home: true, ..Container::default() };
        let full = Container {
            image: "/images/a.sqsh".into(),
            mounts: vec![mount("/data", "/data", true), mount("/a", "/b c", false)],
            workdir: "/w".into(),
            mount_home: false,
            read_only: true,
        };
        for container in [plain, full] {
            let mut extras = container.extras();
            extras.push(Pair { name: "distribution".into(), value: "block".into() });
            assert_eq!(Container::of_extras(&extras), Some(container));
        }
        assert_eq!(Container::of_extras(&[]), None);
    }
}
