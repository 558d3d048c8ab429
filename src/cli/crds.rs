//! `gaia crds`: the kinds as CustomResourceDefinitions, for a real cluster or for reading.

use std::{fs, io::Write, path::PathBuf};

use clap::Args;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt;

use super::{CliError, Outcome};
use crate::api;

#[derive(Debug, Args)]
pub struct CrdsArgs {
    /// Write one file per kind into this directory, made when needed
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
}

pub fn run(args: &CrdsArgs, out: &mut dyn Write) -> Outcome {
    match &args.output {
        Some(dir) => {
            fs::create_dir_all(dir).map_err(CliError::file(format!("cannot make {}", dir.display())))?;
            for crd in api::crds() {
                let path = dir.join(format!("{}.yaml", crd.name_any()));
                fs::write(&path, yaml(&crd)?).map_err(CliError::file(format!("cannot write {}", path.display())))?;
                writeln!(out, "{}", path.display())?;
            }
        }
        None => {
            for crd in api::crds() {
                write!(out, "---\n{}", yaml(&crd)?)?;
            }
        }
    }
    Ok(0)
}

fn yaml(crd: &CustomResourceDefinition) -> Result<String, CliError> {
    serde_saphyr::to_string(crd).map_err(|e| CliError::Failed(format!("cannot write {} as YAML: {e}", crd.name_any())))
}
