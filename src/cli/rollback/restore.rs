//! An earlier template is put into the spec, and followed until its container runs. Not where a file states it: the file would
//! set it back.

use std::{io::Write, time::Duration};

use futures::StreamExt;
use kube::{
    ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use serde_json::{Map, Value};

use super::{
    super::{
        CliError, Outcome,
        follow::{End, INTERRUPTED, follow},
        objects, print,
        session::Session,
        stack::services::{self, Standing},
        view::View,
    },
    RollbackArgs,
};
use crate::api::{
    source::{FIELD_MANAGER, Source},
    workload::{Variant, Workload},
    workloadhistory::WorkloadRevision,
};

pub struct Change<'a> {
    pub workload: &'a Workload,
    pub variant: Variant,
    pub present: &'a WorkloadRevision,
    pub wanted: &'a WorkloadRevision,
}

impl Change<'_> {
    pub async fn carry_out(&self, session: &Session, args: &RollbackArgs, out: &mut dyn Write) -> Outcome {
        let (name, word) = (self.workload.name_any(), self.variant.as_str());
        if stated(self.workload, self.variant) {
            let sources: Vec<Source> = session.list(None, None).await?;
            if let Some(refusal) = self.refusal(&sources) {
                return Err(CliError::Failed(refusal));
            }
        }
        let sent = self.send(session, self.workload, &self.wanted.container).await?;
        let what = format!("revision {} of the {word} variant of {name}", self.wanted.revision);
        if args.no_wait {
            print::result(out, args.output, &sent, || format!("{what} is its template again\n"))?;
            return Ok(0);
        }
        eprintln!("{what} is its template again; Ctrl-C leaves it so");
        match self.until_there(session, args, &sent).await? {
            End::Came((workload, Standing::Stuck(why))) => {
                if args.output != print::Format::Text {
                    print::result(out, args.output, &workload, String::new)?;
                }
                Err(CliError::Failed(format!("{what} does not run: {why}")))
            }
            End::Came((workload, standing)) => {
                let text = match (standing, services::wished(&workload, self.variant)) {
                    (Standing::WaitsForCard(why), _) => format!("{what} starts when it gets its card: {why}\n"),
                    (_, true) => format!("{what} runs\n"),
                    (_, false) => format!("{what} is its template again; it is not to run\n"),
                };
                print::result(out, args.output, &workload, || text)?;
                Ok(0)
            }
            End::TimedOut => {
                let seconds = args.timeout;
                let look = format!("it goes on; look: gaia describe workload {name} -n {}", args.namespace);
                Err(CliError::Failed(format!("{what} does not run and answer after {seconds} s; {look}")))
            }
            End::Interrupted if args.cancel_on_interrupt => {
                self.send(session, &sent, &self.present.container).await?;
                Err(CliError::Failed(format!("set back to revision {} of the {word} variant", self.present.revision)))
            }
            End::Interrupted => {
                eprintln!("It goes on. Look: gaia history {name}. Undo: gaia rollback {name} --variant {word}");
                Ok(INTERRUPTED)
            }
        }
    }

    async fn send(&self, session: &Session, onto: &Workload, to: &Map<String, Value>) -> Result<Workload, CliError> {
        let path = format!("/spec/{}/container", self.variant.as_str());
        session.replace(onto, &path, Value::Object(to.clone())).await
    }

    async fn until_there(
        &self,
        session: &Session,
        args: &RollbackArgs,
        sent: &Workload,
    ) -> Result<End<(Workload, Standing)>, CliError> {
        let name = sent.name_any();
        let mut watch =
            watcher::watch_object(session.within::<Workload>(&args.namespace), &name).default_backoff().boxed();
        let mut view = View::new();
        let limit = Some(Duration::from_secs(args.timeout.into()));
        let end = follow(&mut watch, limit, |workload: Option<Workload>| {
            let Some(workload) = workload else {
                return Err(CliError::Failed(format!("{} was deleted", objects::label::<Workload>(&name))));
            };
            // What the watch brings first may be older than our patch.
            if workload.metadata.generation < sent.metadata.generation {
                return Ok(None);
            }
            match standing(&workload, self.variant, &self.wanted.spec_hash) {
                Standing::Going(why) => {
                    view.say(if why == "asked" { "" } else { &why });
                    view.now(50, &why);
                    Ok(None)
                }
                there => Ok(Some((workload, there))),
            }
        })
        .await;
        view.finish();
        end
    }

    /// What to do instead, where a file states the template.
    fn refusal(&self, sources: &[Source]) -> Option<String> {
        let (name, namespace) = (self.workload.name_any(), self.workload.namespace());
        let of = |source: &Source| {
            let inventory = source.status.iter().flat_map(|status| &status.inventory);
            let its = inventory.filter(|entry| entry.kind == "Workload" && entry.name == name);
            its.filter(|entry| entry.namespace == namespace).map(|entry| source.place_of(entry)).next()
        };
        let (source, place) = sources.iter().find_map(|source| of(source).map(|place| (source, place)))?;
        // Such a one sets nothing back; the server warns of it.
        if source.spec.suspend {
            return None;
        }
        let (word, revision) = (self.variant.as_str(), self.wanted.revision);
        Some(format!(
            "spec.{word}.container of {name} is stated in {place} (Source {}), which would set it back. Undo it there: take \
             back the change of that file (git revert), or put the earlier template into it, which is shown by\n  \
             gaia history {name} -n {} --variant {word} --revision {revision} -o yaml",
            source.name_any(),
            namespace.as_deref().unwrap_or("default"),
        ))
    }
}

/// A file states the template, or a part of it.
fn stated(workload: &Workload, variant: Variant) -> bool {
    let path = format!("/f:spec/f:{}/f:container", variant.as_str());
    workload.managed_fields().iter().any(|entry| {
        entry.manager.as_deref() == Some(FIELD_MANAGER)
            && entry.operation.as_deref() == Some("Apply")
            && entry.fields_v1.as_ref().is_some_and(|fields| fields.0.pointer(&path).is_some())
    })
}

/// As for a start; but the old container does not count.
fn standing(workload: &Workload, variant: Variant, spec_hash: &str) -> Standing {
    let wished = services::wished(workload, variant);
    let made_from = services::seen(workload, variant).spec_hash;
    match services::standing(workload, variant, wished) {
        Standing::There if wished && made_from.as_deref().is_some_and(|made_from| made_from != spec_hash) => {
            Standing::Going("waits for the container to be made anew".to_owned())
        }
        standing => standing,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::super::stack::services::tests::{state, workload},
        *,
    };

    fn revision(revision: i64) -> WorkloadRevision {
        let text = json!({"revision": revision, "since": "2026-11-20T10:00:00Z", "specHash": "h1", "container": {}});
        serde_json::from_value(text).expect("a revision")
    }

    #[test]
    fn the_old_container_is_not_what_is_waited_for() {
        let mut web = workload("web", state("Running", "Healthy"), state("Absent", "Unknown"), "Running");
        let live = |web: &mut Workload| web.status.as_mut().and_then(|s| s.live.as_mut()).expect("live").clone();
        let mut seen = live(&mut web);
        seen.spec_hash = Some("h2".to_owned());
        web.status.as_mut().expect("a status").live = Some(seen.clone());
        assert!(matches!(standing(&web, Variant::Live, "h1"), Standing::Going(_)));
        seen.spec_hash = Some("h1".to_owned());
        web.status.as_mut().expect("a status").live = Some(seen);
        assert_eq!(standing(&web, Variant::Live, "h1"), Standing::There);
        assert_eq!(standing(&web, Variant::Candidate, "h1"), Standing::There, "it is not to run");
    }

    #[test]
    fn what_a_file_states_is_undone_there() {
        let mut web = workload("web", state("Running", "Healthy"), state("Absent", "Unknown"), "Running");
        web.metadata.namespace = Some("default".to_owned());
        assert!(!stated(&web, Variant::Live));
        let fields = json!([{"manager": FIELD_MANAGER, "operation": "Apply",
            "fieldsV1": {"f:spec": {"f:live": {"f:container": {"f:image": {}}}}}}]);
        web.metadata.managed_fields = serde_json::from_value(fields).expect("managed fields");
        assert!(stated(&web, Variant::Live) && !stated(&web, Variant::Candidate));

        let entry = json!({"apiVersion": "gaia.dev/v1alpha1", "kind": "Workload", "namespace": "default", "name": "web",
            "file": "stack/web.yaml:3"});
        let source = json!({"metadata": {"name": "desired"}, "spec": {"directory": "/etc/gaia/desired/"},
            "status": {"inventory": [entry]}});
        let mut source: Source = serde_json::from_value(source).expect("a Source");
        let (present, wanted) = (revision(2), revision(1));
        let change = Change { workload: &web, variant: Variant::Live, present: &present, wanted: &wanted };
        let told = change.refusal(std::slice::from_ref(&source)).expect("refused");
        assert!(told.contains("/etc/gaia/desired/stack/web.yaml:3 (Source desired)"), "{told}");
        assert!(told.contains("gaia history web -n default --variant live --revision 1 -o yaml"), "{told}");
        source.spec.suspend = true;
        assert_eq!(change.refusal(&[source]), None);
    }
}
