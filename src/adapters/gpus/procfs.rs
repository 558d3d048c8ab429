//! Who a process is, by what `/proc` says: its name and the container that its cgroup names. Where `/proc` is, is an argument.

use std::{fs, path::Path};

use super::GpuProcess;
use crate::adapters::containers::ContainerId;

/// Hex digits of a full container id.
const ID_DIGITS: usize = 64;

/// A process on a card, with what can be found out about it. One that ended meanwhile has neither name nor container.
pub fn process(proc_root: &Path, pid: u32, used_mib: Option<u64>) -> GpuProcess {
    let dir = proc_root.join(pid.to_string());
    let name = fs::read_to_string(dir.join("comm")).ok().map(|name| name.trim().to_owned());
    let cgroup = fs::read_to_string(dir.join("cgroup")).unwrap_or_default();
    let (container, other_engine) = container_of(&cgroup).map(|(id, other)| (Some(id), other)).unwrap_or_default();
    GpuProcess { pid, name: name.filter(|name| !name.is_empty()), container, other_engine, used_mib }
}

/// The container that the text of a `/proc/PID/cgroup` names, of v1 (a line a controller) or v2 (one line), and whether another
/// engine than Docker made it.
///
/// Of containers in containers it is the outermost: the only one that the engine of this host knows.
pub fn container_of(cgroup: &str) -> Option<(ContainerId, bool)> {
    // `id:controllers:path`; the path may hold colons of its own.
    cgroup.lines().filter_map(|line| line.splitn(3, ':').nth(2)).find_map(|path| {
        let (maker, id) = path.split('/').find_map(id_in)?;
        let other_engine = match maker {
            // Docker names the scope, or under cgroupfs nothing, as the kubelet's engines do too.
            "" => path.contains("/kubepods"),
            maker => maker != "docker",
        };
        Some((ContainerId(id.to_owned()), other_engine))
    })
}

/// Who made it, and its id: `<id>`, `docker-<id>.scope`, `cri-containerd-<id>.scope`, `libpod-<id>.scope`,
/// `kubepods-….slice:cri-containerd:<id>`.
fn id_in(part: &str) -> Option<(&str, &str)> {
    let part = part.strip_suffix(".scope").unwrap_or(part);
    let (before, id) = part.rsplit_once(['-', ':']).unwrap_or(("", part));
    // Podman's and CRI-O's monitor of a container is not in it.
    let is_id = id.len() == ID_DIGITS && id.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'));
    (is_id && !before.ends_with("conmon")).then_some((before, id))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const ID: &str = "3f1c0de5a9b84e7d6c5b4a3f2e1d0c9b8a7f6e5d4c3b2a190f8e7d6c5b4a3f2e";
    const INNER: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    #[rstest]
    #[case::docker_v1(
        "12:pids:/docker/{}\n11:memory:/docker/{}\n0::/system.slice/containerd.service\n",
        Some("docker")
    )]
    #[case::docker_v2_systemd("0::/system.slice/docker-{}.scope\n", Some("docker"))]
    #[case::docker_v2_cgroupfs("0::/docker/{}\n", Some("docker"))]
    #[case::docker_with_a_process_tree_below("0::/system.slice/docker-{}.scope/init.scope\n", Some("docker"))]
    #[case::docker_seen_from_another_namespace("0::/../docker-{}.scope\n", Some("docker"))]
    #[case::docker_in_docker("0::/docker/{}/docker/INNER\n", Some("docker"))]
    #[case::kubepods_v1("4:cpu:/kubepods/burstable/pod7d1a2b3c-0000-4000-8000-000000000000/{}\n", Some("another"))]
    #[case::kubepods_containerd(
        "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod7d_1.slice/cri-containerd-{}.scope\n",
        Some("another")
    )]
    #[case::kubepods_containerd_service(
        "0::/system.slice/containerd.service/kubepods-pod7d.slice:cri-containerd:{}\n",
        Some("another")
    )]
    #[case::crio("0::/kubepods.slice/kubepods-pod7d.slice/crio-{}.scope\n", Some("another"))]
    #[case::podman("0::/machine.slice/libpod-{}.scope/container\n", Some("another"))]
    #[case::podman_rootless(
        "0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{}.scope\n",
        Some("another")
    )]
    #[case::the_monitor_of_podman("0::/machine.slice/libpod-conmon-{}.scope\n", None)]
    #[case::session("0::/user.slice/user-1000.slice/session-2.scope\n", None)]
    #[case::service("0::/system.slice/ollama.service\n", None)]
    #[case::root("0::/\n", None)]
    #[case::too_short("0::/docker/3f1c0de5a9b8\n", None)]
    #[case::not_hex("0::/docker/zf1c0de5a9b84e7d6c5b4a3f2e1d0c9b8a7f6e5d4c3b2a190f8e7d6c5b4a3f2e\n", None)]
    #[case::nothing("", None)]
    #[case::not_a_cgroup("garbage\n::\n", None)]
    fn a_cgroup_names_its_container(#[case] text: &str, #[case] inside: Option<&str>) {
        let text = text.replace("{}", ID).replace("INNER", INNER);
        let expected = inside.map(|engine| (ContainerId(ID.to_owned()), engine != "docker"));
        assert_eq!(container_of(&text), expected);
    }

    #[test]
    fn a_process_is_told_as_far_as_it_is_known() {
        let proc_root = tempfile::tempdir().expect("a temporary directory");
        let dir = proc_root.path().join("7");
        fs::create_dir(&dir).expect("made");
        fs::write(dir.join("comm"), "python3\n").expect("written");
        fs::write(dir.join("cgroup"), format!("0::/system.slice/docker-{ID}.scope\n")).expect("written");
        let told = process(proc_root.path(), 7, Some(300));
        assert_eq!((told.name.as_deref(), told.used_mib), (Some("python3"), Some(300)));
        assert_eq!(told.container, Some(ContainerId(ID.to_owned())));
        let gone = process(proc_root.path(), 8, None);
        assert_eq!(gone, GpuProcess { pid: 8, name: None, container: None, other_engine: false, used_mib: None });
    }
}
