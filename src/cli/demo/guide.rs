//! What to try once the demo stands.

use std::path::Path;

/// Commands that can be copied as they are.
pub fn text(server: &str, kubeconfig: &Path, desired: &Path, workload: &str) -> String {
    let (kubeconfig, desired) = (kubeconfig.display(), desired.display());
    // Whoever came by `cargo run` has it on no PATH.
    let gaia = std::env::current_exe().map_or_else(|_| "gaia".to_owned(), |path| path.display().to_string());
    let websocket = server.replacen("http://", "ws://", 1);
    let path = format!("{server}/apis/gaia.dev/v1alpha1/namespaces/default/workloads/{workload}");
    format!(
        r#"
Try, in another terminal:

  # Look: any Kubernetes client will do.
  export KUBECONFIG={kubeconfig}
  kubectl get workloads
  kubectl describe workload {workload}
  kubectl get gpus
  kubectl get events --watch

  # Stop a container over HTTP, and watch it stop. (What a file states, the file sets back; a Warning names the line.)
  curl -i -X PATCH {path} -H 'content-type: application/merge-patch+json' -d '{{"spec":{{"live":{{"running":false}}}}}}'
  {gaia} watch workloads --server {server}

  # Follow everything as it happens.
  websocat '{websocket}/ws/watch'
  curl -N {server}/sse/watch

  # Edit a file, save it, and see the containers follow.
  $EDITOR {desired}/stack/{workload}.yaml
  {gaia} diff -f {desired} --server {server}

Ctrl-C ends the demo and removes its files.
"#
    )
}
