//! What to try once the demo stands.

use std::path::Path;

/// Commands that can be copied as they are. Handoffs are among them where a card is `held`: who else should give it?
pub fn text(server: &str, kubeconfig: &Path, desired: &Path, workload: &str, held: bool) -> String {
    let (kubeconfig, desired) = (kubeconfig.display(), desired.display());
    // Whoever came by `cargo run` has it on no PATH.
    let gaia = std::env::current_exe().map_or_else(|_| "gaia".to_owned(), |path| path.display().to_string());
    let websocket = server.replacen("http://", "ws://", 1);
    let path = format!("{server}/apis/gaia.dev/v1alpha1/namespaces/default/workloads/{workload}");
    let handoffs = if held { handoffs(&gaia) } else { String::new() };
    format!(
        r#"
Try, in another terminal:

  # Look: any Kubernetes client will do.
  export KUBECONFIG={kubeconfig}
  kubectl get workloads
  kubectl describe workload {workload}
  kubectl get gpus
  kubectl get events --watch
  export GAIA_SERVER={server}
  {gaia} status

{handoffs}  # Stop a container over HTTP, and watch it stop. (What a file states, the file sets back; a Warning names the line.)
  curl -i -X PATCH {path} -H 'content-type: application/merge-patch+json' -d '{{"spec":{{"live":{{"running":false}}}}}}'
  {gaia} watch workloads

  # Follow everything as it happens.
  websocat '{websocket}/ws/watch'
  curl -N {server}/sse/watch

  # Edit a file, save it, and see the containers follow.
  $EDITOR {desired}/stack/{workload}.yaml
  {gaia} diff -f {desired}

Ctrl-C ends the demo and removes its files.
"#
    )
}

fn handoffs(gaia: &str) -> String {
    format!(
        "  # Let prime hand its card to study, and follow every phase, there and here. Then back.
  {gaia} handoff prime-to-study
  {gaia} handoff status                      # then the whole story of one: {gaia} handoff show NAME
  {gaia} gpu who
  {gaia} handoff study-to-prime

"
    )
}
