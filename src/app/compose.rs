//! The containers that Compose runs on this host, compared with what their services say. Changes nothing.

use crate::{
    adapters::containers::{Container, Containers, EngineResult, docker::DockerEngine},
    api::{container::ContainerSpec, label},
};

/// A container that Compose made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub service: String,
    pub container: String,
    /// From what its service says; none: it would be taken over.
    pub differences: Vec<String>,
}

/// `services`: by name, with what each comes to.
pub async fn compare(project: &str, services: Vec<(String, ContainerSpec)>) -> EngineResult<Vec<Found>> {
    let engine = DockerEngine::from_env();
    let label = Some((label::COMPOSE_PROJECT, Some(project)));
    let all = engine.list(label).await?;
    let mut found = Vec::new();
    for (service, spec) in services {
        let its = |container: &&Container| container.labels.get(label::COMPOSE_SERVICE) == Some(&service);
        for container in all.iter().filter(its) {
            let differences = engine.differences(&container.id, &spec).await?;
            found.push(Found { service: service.clone(), container: container.name.clone(), differences });
        }
    }
    Ok(found)
}
