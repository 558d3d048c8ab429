//! The verbs of [`Containers`] on Docker.

use std::{collections::HashMap, time::Duration};

use bollard::{
    Docker,
    models::{self, ContainerUpdateBody},
    query_parameters::{
        CreateContainerOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
        RenameContainerOptionsBuilder, StopContainerOptionsBuilder,
    },
};
use futures::{
    FutureExt, StreamExt, TryStreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};

use super::{DEADLINE, DockerEngine, differences, errors::Call, events, exec, observe, pull, request};
use crate::{
    adapters::containers::{
        Container, ContainerId, ContainerRequest, ContainerSummary, Containers, EngineError, EngineEvent, EngineResult,
        ExecResult, PullProgress, TerminalReason,
    },
    api::container::ContainerSpec,
};

/// Of Docker's list: its name, and what it is to be.
type Filter = (&'static str, String);

/// Inspections at a time while listing.
const INSPECTIONS: usize = 8;

impl DockerEngine {
    async fn list_all(&self, label: Option<(&str, Option<&str>)>) -> EngineResult<Vec<Container>> {
        let mut ids: Vec<_> =
            self.listed(label.map(labelled)).await?.into_iter().filter_map(|summary| summary.id).collect();
        ids.sort();
        // One that vanished since is left out; any other failure fails the whole.
        stream::iter(ids)
            .map(|id| async move { self.look(&id).await })
            .buffered(INSPECTIONS)
            .try_filter_map(|found| std::future::ready(Ok(found)))
            .try_collect()
            .await
    }

    async fn summarised(&self, filter: Option<Filter>) -> EngineResult<Vec<ContainerSummary>> {
        let incomplete = || Call::read("list containers", "").unanswered("the answer is incomplete");
        let listed = self.listed(filter).await?.into_iter();
        let mut all: Vec<_> =
            listed.map(|seen| observe::summary(seen).ok_or_else(incomplete)).collect::<EngineResult<_>>()?;
        all.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(all)
    }

    /// As the engine's list has it: nobody waits for what the engine is doing with it.
    pub(super) async fn listed_as(&self, id: &str) -> EngineResult<Option<ContainerSummary>> {
        let found = self.summarised(Some(("id", id.to_owned()))).await?;
        Ok(found.into_iter().find(|container| container.id.0 == id))
    }

    async fn listed(&self, filter: Option<Filter>) -> EngineResult<Vec<models::ContainerSummary>> {
        let docker = self.client().await?;
        let filters: HashMap<&str, Vec<String>> = filter.into_iter().map(|(key, value)| (key, vec![value])).collect();
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let call = Call::read("list containers", "");
        self.within(call, DEADLINE, docker.list_containers(Some(options))).await
    }

    /// Docker also takes the beginning of an id for an answer; we do not.
    async fn look(&self, id_or_name: &str) -> EngineResult<Option<Container>> {
        if !is_plain(id_or_name) {
            return Ok(None);
        }
        let docker = self.client().await?;
        let call = Call::read("inspect", id_or_name);
        let seen = match self.within(call, DEADLINE, docker.inspect_container(id_or_name, None)).await {
            Ok(seen) => seen,
            Err(EngineError::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let container = observe::container(seen).ok_or_else(|| call.unanswered("the answer is incomplete"))?;
        Ok(Some(container).filter(|found| found.id.0 == id_or_name || found.name == id_or_name))
    }

    async fn make(&self, request: &ContainerRequest) -> EngineResult<ContainerId> {
        let body = request::body(request)?;
        self.require_networks(&request.networks).await?;
        let docker = self.client().await?;
        let options = CreateContainerOptionsBuilder::default().name(&request.name).build();
        let call = Call::effect("create", &request.name);
        let made = self.within(call, DEADLINE, docker.create_container(Some(options), body)).await?;
        for (network, aliases) in request.networks.iter().skip(1) {
            if let Err(error) = self.connect(&made.id, network, aliases).await {
                return Err(self.unmake(&docker, &made.id, error).await);
            }
        }
        Ok(ContainerId(made.id))
    }

    async fn compare(&self, id: &ContainerId, spec: &ContainerSpec) -> EngineResult<Vec<String>> {
        let docker = self.client().await?;
        let call = Call::read("inspect", &id.0);
        let seen = self.within(call, DEADLINE, docker.inspect_container(&id.0, None)).await?;
        // By its id: the name may mean another one by now. An image that is gone gave nothing that could be told any more.
        let image = seen.image.clone().unwrap_or_default();
        let call = Call::read("inspect image", &image);
        let image = match self.within(call, DEADLINE, docker.inspect_image(&image)).await {
            Ok(found) => found.config.unwrap_or_default(),
            Err(EngineError::NotFound(_)) | Err(EngineError::Terminal { .. }) => Default::default(),
            Err(error) => return Err(error),
        };
        let request = ContainerRequest {
            name: String::new(),
            spec: spec.clone(),
            labels: Default::default(),
            networks: Vec::new(),
        };
        let aliases = |network: &String| spec.network_options.get(network).map(|options| options.aliases.clone());
        let networks: Vec<_> =
            spec.networks.iter().map(|network| (network.clone(), aliases(network).unwrap_or_default())).collect();
        Ok(differences::differences(&seen, &image, &request::body(&request)?, &networks))
    }

    /// A container that could not be finished is none. When it cannot be removed either, the caller finds it.
    async fn unmake(&self, docker: &Docker, id: &str, error: EngineError) -> EngineError {
        match self.delete(docker, id).await {
            Ok(()) => error,
            Err(second) => EngineError::MayHaveTakenEffect(format!("{error}, and removing it again: {second}")),
        }
    }

    async fn delete(&self, docker: &Docker, id: &str) -> EngineResult<()> {
        let options = RemoveContainerOptionsBuilder::default().v(true).build();
        let call = Call::effect("remove", id);
        match self.within(call, DEADLINE, docker.remove_container(id, Some(options))).await {
            Err(EngineError::NotFound(_)) => Ok(()),
            result => result,
        }
    }

    async fn name(&self, id: &ContainerId, name: &str) -> EngineResult<()> {
        let docker = self.client().await?;
        let container = self.look(&id.0).await?.ok_or_else(|| EngineError::NotFound(format!("container {id}")))?;
        if container.name == name {
            return Ok(());
        }
        let options = RenameContainerOptionsBuilder::default().name(name).build();
        self.within(Call::effect("rename", &container.name), DEADLINE, docker.rename_container(&id.0, options)).await
    }

    async fn find_image(&self, image: &str) -> EngineResult<Option<String>> {
        if !is_plain(image) {
            return Ok(None);
        }
        let docker = self.client().await?;
        match self.within(Call::read("inspect image", image), DEADLINE, docker.inspect_image(image)).await {
            Ok(found) => Ok(found.id),
            Err(EngineError::NotFound(_))
            | Err(EngineError::Terminal { reason: TerminalReason::ImageNotFound, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Containers for DockerEngine {
    fn list<'a>(&'a self, label: Option<(&'a str, Option<&'a str>)>) -> BoxFuture<'a, EngineResult<Vec<Container>>> {
        self.list_all(label).boxed()
    }

    fn summaries<'a>(
        &'a self,
        label: Option<(&'a str, Option<&'a str>)>,
    ) -> BoxFuture<'a, EngineResult<Vec<ContainerSummary>>> {
        self.summarised(label.map(labelled)).boxed()
    }

    fn inspect<'a>(&'a self, id_or_name: &'a str) -> BoxFuture<'a, EngineResult<Option<Container>>> {
        self.look(id_or_name).boxed()
    }

    fn differences<'a>(
        &'a self,
        id: &'a ContainerId,
        spec: &'a ContainerSpec,
    ) -> BoxFuture<'a, EngineResult<Vec<String>>> {
        self.compare(id, spec).boxed()
    }

    fn create<'a>(&'a self, request: &'a ContainerRequest) -> BoxFuture<'a, EngineResult<ContainerId>> {
        self.make(request).boxed()
    }

    fn start<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, EngineResult<()>> {
        async move {
            let docker = self.client().await?;
            self.teardowns.over().await;
            self.within(Call::effect("start", &id.0), DEADLINE, docker.start_container(&id.0, None)).await
        }
        .boxed()
    }

    fn stop<'a>(&'a self, id: &'a ContainerId, grace: Duration) -> BoxFuture<'a, EngineResult<()>> {
        async move {
            let docker = self.client().await?;
            let seconds = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
            let options = StopContainerOptionsBuilder::default().t(seconds).build();
            let call = Call::effect("stop", &id.0);
            let _stop = self.teardowns.stop(id);
            self.within(call, grace + DEADLINE, docker.stop_container(&id.0, Some(options))).await
        }
        .boxed()
    }

    fn remove<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, EngineResult<()>> {
        async move { self.delete(&self.client().await?, &id.0).await }.boxed()
    }

    fn rename<'a>(&'a self, id: &'a ContainerId, name: &'a str) -> BoxFuture<'a, EngineResult<()>> {
        self.name(id, name).boxed()
    }

    fn forbid_restarts<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, EngineResult<()>> {
        async move {
            let docker = self.client().await?;
            let body = ContainerUpdateBody { restart_policy: Some(request::no_restarts()), ..Default::default() };
            self.within(Call::effect("update", &id.0), DEADLINE, docker.update_container(&id.0, body)).await
        }
        .boxed()
    }

    fn ensure_network<'a>(&'a self, name: &'a str) -> BoxFuture<'a, EngineResult<()>> {
        self.make_network(name).boxed()
    }

    fn ensure_attached<'a>(
        &'a self,
        id: &'a ContainerId,
        network: &'a str,
        aliases: &'a [String],
    ) -> BoxFuture<'a, EngineResult<()>> {
        async move {
            let container = self.look(&id.0).await?;
            let container = container.ok_or_else(|| EngineError::NotFound(format!("container {id}")))?;
            self.attach(&container, network, aliases).await
        }
        .boxed()
    }

    fn image<'a>(&'a self, image: &'a str) -> BoxFuture<'a, EngineResult<Option<String>>> {
        self.find_image(image).boxed()
    }

    fn pull<'a>(
        &'a self,
        image: &'a str,
        progress: &'a (dyn Fn(PullProgress) + Send + Sync),
    ) -> BoxFuture<'a, EngineResult<()>> {
        pull::pull(self, image, progress).boxed()
    }

    fn exec<'a>(
        &'a self,
        id: &'a ContainerId,
        command: &'a [String],
        timeout: Duration,
    ) -> BoxFuture<'a, EngineResult<ExecResult>> {
        async move {
            let docker = self.client().await?;
            let call = || Call::effect("exec in", &id.0);
            let result = self.within(call(), timeout, exec::exec(&docker, &self.overdue, id, command)).await?;
            result.ok_or_else(|| call().unanswered("its last run was given up and has not ended yet".to_owned()))
        }
        .boxed()
    }

    fn events(&self) -> BoxStream<'static, EngineEvent> {
        events::listen(self)
    }
}

fn labelled((key, value): (&str, Option<&str>)) -> Filter {
    ("label", value.map_or_else(|| key.to_owned(), |value| format!("{key}={value}")))
}

/// Can be part of a URL as it is, and does not lead elsewhere. Nothing in Docker has another name.
fn is_plain(name: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
    !name.is_empty() && !name.contains("..") && name.chars().all(known)
}
