//! Hands other than ours, and mishaps: what people, other programs and the host do to the engine and its containers.
//! Everything goes by container name; `false` or `None` says there was nothing of that name to do it to.

use std::collections::BTreeMap;

use super::{
    Behaviour, Image, Images, SimulatedContainers,
    lifecycle::{KILLED, blank},
    machine::{Held, Machine, Moment, is_alive},
};
use crate::adapters::containers::{Attachment, ContainerId, ContainerState, EngineResult};

impl SimulatedContainers {
    /// The process ends by itself with that exit code.
    pub fn end_process(&self, name: &str, exit_code: i64) -> bool {
        self.by_hand(name, |machine, id, now| machine.die(id, exit_code, now))
    }

    /// `docker stop`, heeded at once.
    pub fn stop_by_hand(&self, name: &str) -> bool {
        self.end_process(name, 0)
    }

    /// `docker kill`.
    pub fn kill_by_hand(&self, name: &str) -> bool {
        self.end_process(name, KILLED)
    }

    /// The kernel kills it for its use of memory.
    pub fn run_out_of_memory(&self, name: &str) -> bool {
        self.by_hand(name, |machine, id, now| {
            machine.emit(id, "oom");
            machine.die(id, KILLED, now);
            if let Ok(held) = machine.get_mut(id) {
                held.seen.oom_killed = true;
            }
        })
    }

    /// `docker start`.
    pub fn start_by_hand(&self, name: &str) -> Option<EngineResult<()>> {
        self.change(|machine, now| {
            let id = machine.find(name)?.seen.id.clone();
            Some(machine.start(&id, now).map(|_| ()))
        })
    }

    /// `docker rm -f`.
    pub fn remove_by_hand(&self, name: &str) -> bool {
        self.by_hand(name, |machine, id, now| {
            machine.die(id, KILLED, now);
            machine.remove(id).expect("it has just died");
        })
    }

    /// `docker rename`.
    pub fn rename_by_hand(&self, name: &str, to: &str) -> Option<EngineResult<()>> {
        self.change(|machine, _| {
            let id = machine.find(name)?.seen.id.clone();
            Some(machine.rename(&id, to).map(|_| ()))
        })
    }

    /// `docker update --restart always`. Only told: the simulated engine starts nothing by itself.
    pub fn let_restart_by_hand(&self, name: &str) -> bool {
        self.by_hand(name, |machine, id, _| {
            machine.set_restarts(id, true).expect("it has just been found");
        })
    }

    /// `docker pause` and `docker unpause`.
    pub fn set_paused(&self, name: &str, paused: bool) -> bool {
        self.by_hand(name, |machine, id, _| {
            let Ok(held) = machine.get_mut(id) else { return };
            let (from, to, action) = match paused {
                true => (ContainerState::Running, ContainerState::Paused, "pause"),
                false => (ContainerState::Paused, ContainerState::Running, "unpause"),
            };
            if held.seen.state == from {
                held.seen.state = to;
                machine.emit(id, action);
            }
        })
    }

    /// Makes the process answer or not, whatever its image says; `None`: as the image says again.
    pub fn set_answering(&self, name: &str, answering: Option<bool>) -> bool {
        self.by_hand(name, |machine, id, _| {
            let Ok(held) = machine.get_mut(id) else { return };
            held.forced = answering;
            if is_alive(held.seen.state) && (held.ready || answering == Some(true)) {
                let health = match held.answers() {
                    true => crate::adapters::containers::EngineHealth::Healthy,
                    false => crate::adapters::containers::EngineHealth::Unhealthy,
                };
                machine.judge_health(id, health);
            }
        })
    }

    /// `docker run`: a container that somebody else made, running, attached to `networks` (made when missing). `None`
    /// when the name is in use.
    pub fn run_foreign(
        &self,
        name: &str,
        image: &str,
        labels: BTreeMap<String, String>,
        networks: &[&str],
    ) -> Option<ContainerId> {
        self.change(|machine, now| {
            if machine.find(name).is_some() {
                return None;
            }
            if machine.images.get(image).is_none() {
                machine.images.known.insert(image.to_owned(), Image::present(Behaviour::default()));
            }
            let id = machine.new_id();
            let mut seen = blank(id.clone(), name, image, now);
            seen.labels = labels;
            for network in networks {
                machine.ensure_network(network);
                let (network, aliases) = ((*network).to_owned(), Vec::new());
                seen.attachments.push(Attachment { network, aliases, ip: None });
            }
            machine.containers.insert(id.clone(), Held::new(seen, None));
            machine.emit(&id, "create");
            machine.start(&id, now).ok()?;
            Some(id)
        })
    }

    /// Somebody else's process takes a host port, or gives it back.
    pub fn set_port_occupied(&self, port: u16, occupied: bool) {
        self.change(|machine, _| match occupied {
            true => machine.occupied.insert(port),
            false => machine.occupied.remove(&port),
        });
    }

    /// An image comes, goes or is replaced. What runs is not touched.
    pub fn set_images(&self, edit: impl FnOnce(&mut Images)) {
        self.change(|machine, _| edit(&mut machine.images));
    }

    /// The engine stops answering; its containers run on.
    pub fn engine_down(&self) {
        self.change(|machine, _| machine.up = false);
    }

    /// The engine answers (again). Event streams say so.
    pub fn engine_up(&self) {
        self.change(|machine, _| {
            machine.up = true;
            machine.epoch += 1;
        });
    }

    /// The engine dies with its containers (a crash of the host): when it is up again it reports them exited with 0, as
    /// Docker does, and no event told of it.
    pub fn engine_crash(&self) {
        self.change(|machine, now| {
            machine.up = false;
            let ids: Vec<_> = machine.containers.keys().cloned().collect();
            ids.iter().for_each(|id| machine.die(id, 0, now));
            machine.lingering.clear();
            machine.outbox.clear();
        });
    }

    fn by_hand(&self, name: &str, act: impl FnOnce(&mut Machine, &ContainerId, Moment)) -> bool {
        self.change(|machine, now| {
            let Some(id) = machine.find(name).map(|held| held.seen.id.clone()) else { return false };
            act(machine, &id, now);
            true
        })
    }
}
