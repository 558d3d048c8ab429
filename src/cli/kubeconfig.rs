//! `gaia kubeconfig`: what kubectl, k9s and every other Kubernetes client needs to reach the server.

use std::{io::Write, path::PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use clap::Args;
use serde_json::{Value, json};

use super::{CliError, Outcome, session::ServerArgs};

/// Name of the cluster, the user and the context.
const NAME: &str = "gaia";

#[derive(Debug, Args)]
#[command(
    after_help = "Example: gaia kubeconfig -o gaia.kubeconfig && kubectl --kubeconfig gaia.kubeconfig get workloads"
)]
pub struct KubeconfigArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Write to this file, readable by its owner only
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub fn run(args: &KubeconfigArgs, out: &mut dyn Write) -> Outcome {
    let text = render(&args.server)?;
    if args.server.token.is_some() && args.server.url()?.scheme_str() == Some("http") {
        eprintln!(
            "Warning: kubectl sends no token over http:// and will be refused; give the server a certificate \
             (gaia serve --tls-cert-file) and name its https:// URL with --server"
        );
    }
    match &args.output {
        Some(path) => write_private(path, &text)?,
        None => out.write_all(text.as_bytes())?,
    }
    Ok(0)
}

/// The kubeconfig as YAML.
pub fn render(server: &ServerArgs) -> Result<String, CliError> {
    let https = server.url()?.scheme_str() == Some("https");
    let mut cluster = json!({"server": server.server.trim_end_matches('/')});
    if let Some(authorities) = server.authorities()? {
        cluster["certificate-authority-data"] = json!(STANDARD.encode(authorities));
    } else if https && server.insecure_skip_tls_verify {
        cluster["insecure-skip-tls-verify"] = json!(true);
    }
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": NAME, "cluster": cluster}],
        "users": [{"name": NAME, "user": server.token.as_ref().map_or_else(|| json!({}), |token| json!({"token": token}))}],
        "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": NAME, "namespace": "default"}}],
        "current-context": NAME,
    });
    to_yaml(&config)
}

fn to_yaml(value: &Value) -> Result<String, CliError> {
    serde_saphyr::to_string(value).map_err(|e| CliError::Failed(format!("cannot write YAML: {e}")))
}

/// The file may hold a token, so nobody else may read it.
pub fn write_private(path: &std::path::Path, text: &str) -> Result<(), CliError> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let write = || {
        let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        file.write_all(text.as_bytes())
    };
    write().map_err(CliError::file(format!("cannot write {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(server: &str, token: Option<&str>) -> Value {
        let args = ServerArgs { token: token.map(str::to_owned), ..ServerArgs::open(server.to_owned()) };
        serde_saphyr::from_str(&render(&args).expect("renders")).expect("is YAML")
    }

    #[test]
    fn plain_http_asks_for_no_certificate_and_no_token() {
        let config = parsed("http://127.0.0.1:6410/", None);
        assert_eq!(config["clusters"][0]["cluster"], json!({"server": "http://127.0.0.1:6410"}));
        assert_eq!(config["users"][0]["user"], json!({}));
        assert_eq!(config["contexts"][0]["context"]["namespace"], "default");
        assert_eq!(config["current-context"], "gaia");
    }

    #[test]
    fn https_is_verified_unless_told_otherwise_and_the_token_is_the_users() {
        let config = parsed("https://host:6410", Some("0123"));
        assert_eq!(config["clusters"][0]["cluster"], json!({"server": "https://host:6410"}));
        let careless =
            ServerArgs { insecure_skip_tls_verify: true, ..ServerArgs::open("https://host:6410".to_owned()) };
        let skips: Value = serde_saphyr::from_str(&render(&careless).expect("renders")).expect("is YAML");
        assert_eq!(skips["clusters"][0]["cluster"]["insecure-skip-tls-verify"], true);
        assert_eq!(config["users"][0]["user"]["token"], "0123", "stays text although it looks like a number");
    }

    #[test]
    fn what_is_no_url_is_wrong_usage() {
        let args = ServerArgs::open("127.0.0.1:6410".to_owned());
        assert_eq!(render(&args).expect_err("no scheme").exit_code(), 2);
    }
}
