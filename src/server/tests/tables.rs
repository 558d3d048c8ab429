//! What `kubectl get` is sent.

use super::*;

const TABLE: &str =
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";

#[tokio::test]
async fn a_list_becomes_a_table_of_its_columns() {
    let server = Server::new().await;
    server.workload("web").await;
    let status = json!({"status": {
        "active": "Live",
        "live": {"state": "Running", "health": "Healthy", "restarts": 2},
        "conditions": [{"type": "Ready", "status": "True", "reason": "Running", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}],
    }});
    server.merge(&format!("{WORKLOADS}/web/status"), &status).await.expect(200);
    let table = server.get_as(&format!("{WORKLOADS}?limit=500"), TABLE).await.expect(200);
    assert_eq!((&table["kind"], &table["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    let column = |name: &str| {
        let columns = table["columnDefinitions"].as_array().expect("columns");
        columns.iter().position(|column| column["name"] == name).unwrap_or_else(|| panic!("no column {name}"))
    };
    let row = &table["rows"][0];
    assert_eq!(row["cells"][column("Name")], "web");
    assert_eq!(row["cells"][column("Active")], "Live");
    assert_eq!(row["cells"][column("Ready")], "True");
    assert_eq!(row["cells"][column("Candidate")], Value::Null);
    assert_eq!(row["cells"][column("Restarts")], 2);
    assert_eq!(table["columnDefinitions"][column("Restarts")]["priority"], 1);
    assert!(row["cells"][column("Age")].as_str().is_some_and(|age| age.ends_with('s')));
    assert_eq!((&row["object"]["kind"], row["object"].get("spec")), (&json!("PartialObjectMetadata"), None));
    assert!(table["metadata"]["resourceVersion"].is_string());
}

#[tokio::test]
async fn a_table_carries_as_much_of_the_objects_as_asked_for() {
    let server = Server::new().await;
    server.workload("web").await;
    let whole = server.get_as(&format!("{WORKLOADS}/web?includeObject=Object"), TABLE).await.expect(200);
    assert_eq!(whole["rows"][0]["object"]["kind"], "Workload");
    let none = server.get_as(&format!("{WORKLOADS}?includeObject=None"), TABLE).await.expect(200);
    assert_eq!(none["rows"][0].get("object"), None);
    server.get_as(&format!("{WORKLOADS}?includeObject=Half"), TABLE).await.expect(400);
    let beta = server.get_as(WORKLOADS, "application/json;as=Table;v=v1beta1;g=meta.k8s.io").await.expect(200);
    assert_eq!(beta["apiVersion"], "meta.k8s.io/v1beta1");
}

#[tokio::test]
async fn events_lead_with_when() {
    let server = Server::new().await;
    let event = json!({
        "kind": "Event", "apiVersion": "v1", "metadata": {"name": "web.1"}, "type": "Normal", "reason": "Started",
        "message": "started", "lastTimestamp": "2026-01-01T00:00:00Z",
        "involvedObject": {"kind": "Workload", "name": "web", "namespace": "default"},
    });
    server.post("/api/v1/namespaces/default/events", &event).await.expect(201);
    for path in ["/api/v1/namespaces/default/events", "/apis/events.k8s.io/v1/namespaces/default/events"] {
        let table = server.get_as(path, TABLE).await.expect(200);
        let columns = table["columnDefinitions"].as_array().expect("columns");
        let shown: Vec<(&str, &Value)> = columns
            .iter()
            .zip(table["rows"][0]["cells"].as_array().expect("cells"))
            .filter(|(column, _)| column["priority"] == 0)
            .map(|(column, cell)| (column["name"].as_str().unwrap_or_default(), cell))
            .collect();
        let names: Vec<&str> = shown.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["Last Seen", "Type", "Reason", "Object", "Message"], "{path}");
        assert_eq!((shown[3].1, shown[4].1), (&json!("workload/web"), &json!("started")), "{path}");
    }
}

#[tokio::test]
async fn a_watched_table_names_its_columns_once() {
    let server = Server::new().await;
    server.workload("a").await;
    let mut watch = server.watch_as(&format!("{WORKLOADS}?watch=true"), TABLE).await;
    let first = watch.event().await;
    assert_eq!((&first["type"], &first["object"]["kind"]), (&json!("ADDED"), &json!("Table")));
    assert!(first["object"]["columnDefinitions"].as_array().is_some_and(|columns| !columns.is_empty()));
    server.workload("b").await;
    let second = watch.event().await;
    assert_eq!(second["object"]["columnDefinitions"], json!([]));
    assert_eq!(second["object"]["rows"][0]["cells"][0], "b");
}
