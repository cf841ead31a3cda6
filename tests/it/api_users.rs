//! Users over HTTP: the record, its conditions, and that a password goes in and never comes out.

use holdfast::model::Username;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::sessions::cluster_id;

const USERS: &str = "/v1/clusters/c/users";
const ADA: &str = "/v1/clusters/c/users/ada";

fn username(text: &str) -> Username {
    Username::new(text).expect("a user name")
}

/// Whether the data plane is told that this is the password of `ada`.
fn is_password_of_ada(api: &Api, password: &str) -> bool {
    let users = api.desired.borrow().clusters[&cluster_id("c")].users.clone();
    users.get("ada").is_some_and(|secrets| secrets.verify(password.as_bytes()))
}

#[tokio::test]
async fn a_user_is_made_read_changed_and_deleted() {
    let api = Api::with_clusters(&["c"]).await;
    let admin = api.admin();
    let made = admin.put(ADA, &json!({"password": "pencil"})).await;
    insta::assert_json_snapshot!("user", made.expect(201), {
        ".created_at" => "[time]", ".updated_at" => "[time]",
    });
    assert!(is_password_of_ada(&api, "pencil"), "in force when it is answered");
    let read = admin.get(ADA).await;
    assert_eq!((read.expect(200), read.etag()), (made.json(), made.etag()));

    // The password stays when it is not sent, and when it is the same.
    let changed = admin.put(ADA, &json!({"is_superuser": true})).await;
    assert_eq!((&changed.expect(200)["is_superuser"], &changed.json()["version"]), (&json!(true), &json!(2)));
    assert!(is_password_of_ada(&api, "pencil"));
    let same = admin.put(ADA, &json!({"password": "pencil", "is_superuser": true})).await;
    assert_eq!((same.expect(200), same.etag()), (changed.json(), changed.etag()));

    // What is not sent of the rest is as for a new one.
    let other = admin.put(ADA, &json!({"password": "stylus"})).await.expect(200);
    assert_eq!((&other["is_superuser"], &other["version"]), (&json!(false), &json!(3)));
    assert!(is_password_of_ada(&api, "stylus") && !is_password_of_ada(&api, "pencil"));

    admin.delete(ADA).await.expect(204);
    admin.get(ADA).await.expect_problem("user_not_found");
    admin.delete(ADA).await.expect_problem("user_not_found");
    assert!(api.desired.borrow().clusters[&cluster_id("c")].users.is_empty());
}

#[tokio::test]
async fn a_change_is_made_to_what_was_read() {
    let api = Api::with_clusters(&["c"]).await;
    let body = json!({"password": "pencil"});
    for tag in ["*", "\"x\""] {
        let caller = api.admin().header("if-match", tag);
        caller.put(ADA, &body).await.expect_problem("precondition_failed");
    }
    let made = api.admin().put(ADA, &body).await;
    let stale = made.etag().to_owned();
    let fresh = api.admin().put(ADA, &json!({"is_superuser": true})).await.etag().to_owned();
    let old = api.admin().header("if-match", &stale);
    old.put(ADA, &body).await.expect_problem("precondition_failed");
    old.delete(ADA).await.expect_problem("precondition_failed");
    api.admin().header("if-match", "x").put(ADA, &body).await.expect_problem("invalid_header");
    api.admin().header("if-match", &fresh).delete(ADA).await.expect(204);

    // The next user of the name is another one.
    let again = api.admin().put(ADA, &body).await;
    assert_ne!(again.etag(), stale);
    assert_eq!(again.expect(201)["version"], 1);
}

#[tokio::test]
async fn users_are_listed_in_pages() {
    let api = Api::with_clusters(&["c", "d"]).await;
    let admin = api.admin();
    for name in ["b", "a%2Fb", "Zo%C3%AB", "c"] {
        admin.put(&format!("{USERS}/{name}"), &json!({"password": name})).await.expect(201);
    }
    admin.put("/v1/clusters/d/users/other", &json!({"password": "x"})).await.expect(201);
    let mut names = Vec::new();
    let mut path = format!("{USERS}?page_size=3");
    loop {
        let page = admin.get(&path).await.expect(200);
        names.extend(page["items"].as_array().expect("items").iter().map(|user| user["username"].clone()));
        let Some(token) = page["next_page_token"].as_str() else { break };
        path = format!("{USERS}?page_size=3&page_token={token}");
    }
    assert_eq!(names, ["Zoë", "a/b", "b", "c"].map(Value::from));
    assert_eq!(admin.get(&format!("{USERS}/a%2Fb")).await.expect(200)["username"], "a/b");
    admin.get("/v1/clusters/none/users").await.expect_problem("cluster_not_found");
    admin.get("/v1/clusters/none/users/ada").await.expect_problem("cluster_not_found");
    admin
        .put("/v1/clusters/none/users/ada", &json!({"password": "x"}))
        .await
        .expect_problem("cluster_not_found");
    admin.delete("/v1/clusters/none/users/ada").await.expect_problem("cluster_not_found");
    admin.get(&format!("{USERS}?page_token=e30")).await.expect_problem("page_token_invalid");
}

#[tokio::test]
async fn what_no_client_could_send_is_refused_and_pointed_at() {
    let api = Api::with_clusters(&["c"]).await;
    let admin = api.admin();
    let refused = async |body: Value, pointer: &str| {
        let problem = admin.put(ADA, &body).await.expect_problem("invalid_body");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}");
    };
    refused(json!({}), "#/password").await;
    for password in [json!(""), json!("x".repeat(1_025)), json!("bell\u{7}"), json!(null), json!(17)] {
        refused(json!({"password": password}), "#/password").await;
    }
    refused(json!({"password": "x", "is_superuser": null}), "#/is_superuser").await;
    refused(json!({"password": "x", "colour": "red"}), "#/colour").await;
    for name in ["%00", "e%CC%81", "a%0A", &"x".repeat(257)] {
        let problem = admin.put(&format!("{USERS}/{name}"), &json!({"password": "x"})).await;
        problem.expect_problem("invalid_parameter");
    }
    admin.put(ADA, &json!({"password": "x".repeat(1_024)})).await.expect(201);
}

#[tokio::test]
async fn a_password_is_in_no_answer() {
    const SECRET: &str = "planted-7f3a";
    let api = Api::with_clusters(&["c"]).await;
    let admin = api.admin();
    let mut answers = vec![admin.put(ADA, &json!({"password": SECRET})).await];
    for body in [
        json!({"password": [SECRET]}),
        json!({"password": {"text": SECRET}}),
        json!({"password": format!("{SECRET}\u{7}")}),
        json!({"password": SECRET.repeat(200)}),
        json!({"password": SECRET, "is_superuser": "yes"}),
    ] {
        answers.push(admin.put(ADA, &body).await);
    }
    answers.push(admin.send(Method::PUT, ADA, Some(format!("{{\"password\": \"{SECRET}\" x"))).await);
    answers.push(admin.get(ADA).await);
    answers.push(admin.get(USERS).await);
    for answer in answers {
        assert!(!answer.text.contains("planted"), "{answer:?}");
        // Nor what is made of it.
        assert!(!answer.text.contains("argon2") && !answer.text.contains("salt"), "{answer:?}");
    }
    let number = admin.put(ADA, &json!({"password": 271_828_182})).await;
    assert!(!number.text.contains("271828182"), "{number:?}");
}

#[tokio::test]
async fn the_users_of_unchanged_clusters_are_shared_between_snapshots() {
    let api = Api::with_clusters(&["c", "d"]).await;
    let admin = api.admin();
    let users = |id: &str| api.desired.borrow().clusters[&cluster_id(id)].users.clone();
    admin.put(ADA, &json!({"password": "pencil"})).await.expect(201);
    let (c, d) = (users("c"), users("d"));
    admin.patch("/v1/clusters/c", &json!({"name": "other"})).await.expect(200);
    assert!(std::sync::Arc::ptr_eq(&c, &users("c")));

    // Another one: what is known already is not read again. A removal: all is.
    admin.put(&format!("{USERS}/bob"), &json!({"password": "pen"})).await.expect(201);
    let more = users("c");
    assert_eq!(more.by_name.len(), 2);
    assert!(std::sync::Arc::ptr_eq(&c.by_name[&username("ada")], &more.by_name[&username("ada")]));
    assert_eq!(c.lineage, more.lineage);
    admin.delete(ADA).await.expect(204);
    let fewer = users("c");
    assert_ne!(more.lineage, fewer.lineage);
    assert_eq!(fewer.by_name.keys().map(Username::as_str).collect::<Vec<_>>(), ["bob"]);
    assert!(std::sync::Arc::ptr_eq(&d, &users("d")), "another cluster's users are another's");

    // A cluster of the same id is another cluster.
    admin.delete("/v1/clusters/c").await.expect(204);
    admin.post("/v1/clusters", &json!({"id": "c"})).await.expect(201);
    assert!(users("c").is_empty());
    assert_ne!(users("c").decoy_key, fewer.decoy_key);
}
