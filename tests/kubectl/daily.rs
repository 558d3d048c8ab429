//! The daily work, with every kubectl there is: what differs between them is on the wire, not in what is printed.

use futures::future::join_all;

use super::{
    applied, ready, status,
    support::{Cluster, kubectls, manifest},
};

const DEFINITION: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: kites.kubectl.example.com}
spec:
  group: kubectl.example.com
  scope: Namespaced
  names: {plural: kites, singular: kite, kind: Kite, shortNames: [kt], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.tails, statusReplicasPath: .status.tails}}
    additionalPrinterColumns: [{name: Tails, type: integer, jsonPath: .spec.tails}]
    selectableFields: [{jsonPath: .spec.colour}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties:
              colour: {type: string, enum: [red, blue], default: red, description: What one sees of it}
              tails: {type: integer, minimum: 0, maximum: 9}
          status: {type: object, properties: {tails: {type: integer}}}
"#;

const KITE: &str =
    "apiVersion: kubectl.example.com/v1\nkind: Kite\nmetadata: {name: high, namespace: default}\nspec: {tails: 1}\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kubectl_can_do_the_daily_work() {
    let all = kubectls();
    join_all(all.iter().map(|kubectl| async move {
        let cluster = Cluster::with(kubectl).await;
        reading_and_writing(&cluster).await;
        editing(&cluster).await;
        asking(&cluster).await;
        following(&cluster).await;
        bringing_a_kind(&cluster).await;
        println!("{} did it all", kubectl.display());
    }))
    .await;
}

async fn reading_and_writing(cluster: &Cluster) {
    assert!(cluster.run("version").await.ok().contains("v1.32.0+gaia"));
    let resources = cluster.run("api-resources --api-group=gaia.dev").await.ok();
    assert!(resources.contains("workloads") && resources.contains("wl"), "{resources}");
    // Since 1.32 these are sent as protobuf.
    assert_eq!(cluster.run("create namespace made").await.ok(), "namespace/made created\n");
    let said = cluster.run("create configmap c -n made --from-literal=a=b --from-literal=empty=").await.ok();
    assert_eq!(said, "configmap/c created\n");
    assert_eq!(cluster.run("get configmap c -n made -o jsonpath={.data}").await.ok(), r#"{"a":"b","empty":""}"#);
    cluster.run("create secret generic s -n made --from-literal=password=hunter2").await.ok();
    assert_eq!(cluster.run("get secret s -n made -o jsonpath={.data.password}").await.ok(), "aHVudGVyMg==");
    assert_eq!(cluster.run("create serviceaccount a -n made").await.ok(), "serviceaccount/a created\n");
    applied(cluster, "web").await;
    let file = cluster.file("web.yaml", &manifest("web"));
    assert_eq!(cluster.run(&format!("apply -f {file}")).await.ok(), "workload.gaia.dev/web unchanged\n");
    status(cluster, "web", ready("True")).await;
    let table = cluster.run("get wl").await.ok();
    assert!(table.starts_with("NAME"), "{table}");
    assert!(table.contains("web") && table.contains("True") && table.contains("AGE"), "{table}");
    assert!(cluster.run("get workloads -o wide").await.ok().contains("busybox"));
    assert_eq!(cluster.run("get wl -o name").await.ok(), "workload.gaia.dev/web\n");
    assert_eq!(cluster.run("get wl web -o jsonpath={.spec.live.container.image}").await.ok(), "busybox");
    assert!(cluster.run("get wl web -o yaml").await.ok().contains("image: busybox"));
    assert!(cluster.run("get all").await.ok().contains("web"));
    assert!(cluster.run("describe wl web").await.ok().contains("busybox"));
    assert!(cluster.run("explain workload.spec.live").await.ok().contains("running"));
    assert_eq!(cluster.run(&format!("diff -f {file}")).await.ok(), "");
    let changed = cluster.file("changed.yaml", &manifest("web").replace("suspend: false", "suspend: true"));
    let diff = cluster.run(&format!("diff -f {changed}")).await;
    assert_eq!(diff.code, Some(1), "{}", diff.stderr);
    assert!(diff.stdout.contains("+  suspend: true"), "{}", diff.stdout);
    let said = cluster.run(&format!("apply -f {changed}")).await.ok();
    assert_eq!(said, "workload.gaia.dev/web configured\n");
    let strict = cluster.file("strict.yaml", &manifest("web").replace("suspend", "sspend"));
    let refused = cluster.run(&format!("apply -f {strict}")).await.fails();
    assert!(refused.contains("sspend"), "{refused}");
    let said = cluster.run(&format!("apply --server-side --force-conflicts -f {changed}")).await.ok();
    assert_eq!(said, "workload.gaia.dev/web serverside-applied\n");
    assert_eq!(cluster.run("get wl web -o jsonpath={.spec.suspend}").await.ok(), "true");
}

async fn editing(cluster: &Cluster) {
    let said = cluster.run_words(&["patch", "wl", "web", "--type=merge", "-p", r#"{"spec":{"suspend":false}}"#]).await;
    assert_eq!(said.ok(), "workload.gaia.dev/web patched\n");
    assert_eq!(cluster.run("label wl web tier=front").await.ok(), "workload.gaia.dev/web labeled\n");
    assert_eq!(cluster.run("get wl -l tier=front -o name").await.ok(), "workload.gaia.dev/web\n");
    // One minor says `annotate`.
    assert!(cluster.run("annotate wl web note=x").await.ok().starts_with("workload.gaia.dev/web annotate"));
    let editor = cluster.file("editor.sh", "#!/bin/sh\nsed -i 's/suspend: false/suspend: true/' \"$1\"\n");
    let editor = format!("sh {editor}");
    assert_eq!(cluster.run_with(("KUBE_EDITOR", &editor), "edit wl web").await.ok(), "workload.gaia.dev/web edited\n");
    let file = cluster.file("web.yaml", &manifest("web"));
    assert_eq!(cluster.run(&format!("replace -f {file}")).await.ok(), "workload.gaia.dev/web replaced\n");
    assert_eq!(cluster.run("get wl web -o jsonpath={.spec.suspend}").await.ok(), "false");
    // A kind that is compiled into kubectl is patched strategically.
    let said = cluster.run("label configmap c -n made tier=back").await.ok();
    assert_eq!(said, "configmap/c labeled\n");
    let config = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: d, namespace: made}\ndata: {a: '1'}\n";
    let file = cluster.file("d.yaml", config);
    assert_eq!(cluster.run(&format!("apply -f {file}")).await.ok(), "configmap/d created\n");
    let file = cluster.file("d.yaml", &config.replace("a: '1'", "b: '2'"));
    assert_eq!(cluster.run(&format!("apply -f {file}")).await.ok(), "configmap/d configured\n");
    assert_eq!(cluster.run("get configmap d -n made -o jsonpath={.data}").await.ok(), r#"{"b":"2"}"#);
}

async fn asking(cluster: &Cluster) {
    assert_eq!(cluster.run("auth can-i get workloads").await.ok(), "yes\n");
    assert!(cluster.run("auth can-i --list").await.ok().contains("*.*"));
    assert!(cluster.run("auth whoami").await.ok().contains("gaia:admin"));
    assert!(cluster.run("get events").await.stderr.contains("No resources found"));
    assert!(cluster.run("events").await.stderr.contains("No events found"));
}

async fn following(cluster: &Cluster) {
    let mut watch = cluster.start("get wl -w");
    watch.line_with("web").await;
    status(cluster, "web", ready("False")).await;
    watch.line_with("False").await;
    let waiting = cluster.start("wait wl/web --for=condition=Ready --timeout=50s");
    status(cluster, "web", ready("True")).await;
    waiting.succeeds().await;
    let gone = cluster.start("wait wl/web --for=delete --timeout=50s");
    assert_eq!(cluster.run("delete wl web").await.ok().trim(), "workload.gaia.dev \"web\" deleted");
    gone.succeeds().await;
    assert!(cluster.run("get wl web").await.fails().contains("workloads.gaia.dev \"web\" not found"));
    // kubectl waits for the end of a namespace, and it ends with all that is in it.
    cluster.run("delete namespace made").await.ok();
    assert!(cluster.run("get configmap c -n made").await.fails().contains("not found"));
}

/// Somebody else's kind: defined, established, used in every way, and gone with its objects.
async fn bringing_a_kind(cluster: &Cluster) {
    let definition = cluster.file("kites.yaml", DEFINITION);
    let said = cluster.run(&format!("apply -f {definition}")).await.ok();
    assert_eq!(said, "customresourcedefinition.apiextensions.k8s.io/kites.kubectl.example.com created\n");
    cluster.run("wait crd/kites.kubectl.example.com --for=condition=Established --timeout=50s").await.ok();
    let file = cluster.file("kite.yaml", KITE);
    assert_eq!(cluster.run(&format!("apply -f {file}")).await.ok(), "kite.kubectl.example.com/high created\n");
    assert_eq!(cluster.run(&format!("apply -f {file}")).await.ok(), "kite.kubectl.example.com/high unchanged\n");
    let table = cluster.run("get kt").await.ok();
    assert!(table.contains("TAILS") && table.contains("high"), "{table}");
    assert!(cluster.run("explain kite.spec.colour").await.ok().contains("What one sees of it"));
    assert_eq!(cluster.run("scale kite high --replicas=3").await.ok(), "kite.kubectl.example.com/high scaled\n");
    assert_eq!(cluster.run("get kite high -o jsonpath={.spec}").await.ok(), r#"{"colour":"red","tails":3}"#);
    let far = cluster.run("scale kite high --replicas=99").await.fails();
    assert!(far.contains("spec.tails: Invalid value"), "{far}");
    let found = cluster.run("get kites --field-selector=spec.colour=red -o name").await.ok();
    assert_eq!(found, "kite.kubectl.example.com/high\n");
    let said = cluster.run("delete crd kites.kubectl.example.com").await.ok();
    assert!(said.contains("deleted"), "{said}");
    let nothing = cluster.run("get --raw /apis/kubectl.example.com/v1/kites").await.fails();
    assert!(nothing.contains("could not find the requested resource"), "{nothing}");
}
