//! Profiles: the first call makes a sandbox and a project, once.

use copass_errors::{Error, ErrorCode};
use copass_proto::{
    identity::{CreateProfileRequest, GetProfileRequest, Profile},
    sandbox::{CreateSandboxRequest, DestroySandboxRequest},
};
use copass_runtime::CallContext;
use copass_test_support::{TestDatabase, Wiring, on_every_setup};

use crate::support::{Stage, ask, code};

on_every_setup! {
    a_destroyed_primary_sandbox_is_replaced_for_the_owner_of_dev
    the_first_call_makes_one_sandbox_whatever_happens_beside_it
    a_repeat_renames_and_keeps_the_rest
    a_sandbox_made_before_the_profile_is_taken
    names_are_checked
    a_first_owner_is_made_for_dev
}

async fn create(
    stage: &Stage,
    context: &CallContext,
    display_name: Option<&str>,
    canonical_id: Option<&str>,
) -> Result<Profile, Error> {
    let text = |value: Option<&str>| value.map(str::to_owned);
    let request = CreateProfileRequest {
        display_name: text(display_name),
        canonical_id: text(canonical_id),
    };
    ask(stage.identity().create_profile(context.request(request))).await
}

async fn get(stage: &Stage, context: &CallContext) -> Result<Profile, Error> {
    ask(stage.identity().get_profile(context.request(GetProfileRequest {}))).await
}

async fn the_first_call_makes_one_sandbox_whatever_happens_beside_it(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let me = stage.me(&stage.person().await).await;
    assert_eq!(code(get(&stage, &me).await), Some(ErrorCode::NotFound));
    let outcomes = futures::future::join_all((0..20).map(|_| create(&stage, &me, Some("Alice"), None))).await;
    let profiles: Vec<Profile> = outcomes.into_iter().map(Result::unwrap).collect();
    assert_eq!(profiles.iter().filter(|profile| profile.was_created).count(), 1);
    assert!(
        profiles
            .iter()
            .all(|profile| profile.sandbox_id == profiles[0].sandbox_id)
    );
    assert!(
        profiles
            .iter()
            .all(|profile| profile.project_id == profiles[0].project_id)
    );
    assert!(profiles[0].sandbox_id.is_some() && profiles[0].project_id.is_some());
    for sql in ["select count(*) from sandboxes", "select count(*) from projects"] {
        assert_eq!(stage.count(sql).await, 1, "{sql}");
    }
    let log = stage.log().await;
    assert_eq!(
        log.iter().filter(|(action, _)| action.starts_with("profile.")).count(),
        1,
        "{log:?}"
    );
    let profile = get(&stage, &me).await.unwrap();
    assert_eq!((profile.display_name.as_str(), profile.was_created), ("Alice", false));
    assert_eq!((profile.metadata_json.as_str(), profile.is_user_root), ("{}", true));
}

async fn a_repeat_renames_and_keeps_the_rest(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let person = stage.person().await;
    let me = stage.me(&person).await;
    // Without a name it is the address's first half.
    let first = create(&stage, &me, None, None).await.unwrap();
    assert_eq!(first.display_name, person.email.split('@').next().unwrap());
    let second = create(&stage, &me, Some("Alice"), Some("person:alice")).await.unwrap();
    assert_eq!(
        (second.display_name.as_str(), second.canonical_id.as_deref()),
        ("Alice", Some("person:alice"))
    );
    assert_eq!(
        (&second.sandbox_id, second.was_created, second.created_at),
        (&first.sandbox_id, false, first.created_at)
    );
    let third = create(&stage, &me, None, None).await.unwrap();
    assert_eq!(
        (third.display_name.as_str(), third.canonical_id.as_deref()),
        ("Alice", Some("person:alice"))
    );
    let fourth = create(&stage, &me, None, Some("person:other")).await.unwrap();
    assert_eq!(fourth.canonical_id.as_deref(), Some("person:other"));
    let actions: Vec<String> = stage.log().await.into_iter().map(|(action, _)| action).collect();
    assert_eq!(actions, ["login", "profile.create", "profile.update", "profile.update"]);
}

async fn a_sandbox_made_before_the_profile_is_taken(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let person = stage.person().await;
    let me = stage.me(&person).await;
    let request = CreateSandboxRequest {
        name: "primary".to_owned(),
        owner_id: person.user_id.clone(),
        ..CreateSandboxRequest::default()
    };
    let sandbox = ask(stage.sandboxes().create_sandbox(me.request(request)))
        .await
        .unwrap();
    let profile = create(&stage, &me, Some("Alice"), None).await.unwrap();
    assert_eq!(profile.sandbox_id, Some(sandbox.sandbox_id));
    assert!(profile.was_created);
}

async fn names_are_checked(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let me = stage.me(&stage.person().await).await;
    let long = "x".repeat(256);
    for (name, id) in [
        (Some(""), None),
        (Some(long.as_str()), None),
        (Some("a\0"), None),
        (None, Some("")),
        (None, Some("\n")),
    ] {
        assert_eq!(
            code(create(&stage, &me, name, id).await),
            Some(ErrorCode::ValidationError),
            "{name:?} {id:?}"
        );
    }
    assert_eq!(stage.count("select count(*) from sandboxes").await, 0);
}

async fn a_first_owner_is_made_for_dev(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let made = stage.concierge.bootstrap_owner("Dev@Localhost", "dev").await.unwrap();
    let answer = stage
        .authenticate(made.api_key.expose(), Some(&made.sandbox_id))
        .await
        .unwrap();
    assert_eq!(
        (answer.user_id.as_str(), answer.access.unwrap().role.as_str()),
        (made.user_id.as_str(), "owner")
    );
    // The person who logs in later with the same address is the same one.
    let person = stage.log_in("dev@localhost", crate::support::DEV_CODE).await.unwrap();
    assert_eq!(person.user_id, made.user_id);
    let again = stage.concierge.bootstrap_owner("dev@localhost", "dev").await.unwrap();
    assert_eq!((&again.user_id, &again.sandbox_id), (&made.user_id, &made.sandbox_id));
    assert_ne!(again.api_key.expose(), made.api_key.expose());
}

/// `copass dev` must start again after its owner destroyed the sandbox it printed, and make one key and not one per try.
async fn a_destroyed_primary_sandbox_is_replaced_for_the_owner_of_dev(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let first = stage.concierge.bootstrap_owner("dev@localhost", "dev").await.unwrap();
    let context = stage.caller(first.api_key.expose(), Some(&first.sandbox_id)).await;
    let request = DestroySandboxRequest {
        sandbox_id: first.sandbox_id.clone(),
    };
    ask(stage.sandboxes().destroy_sandbox(context.request(request)))
        .await
        .unwrap();
    let second = stage.concierge.bootstrap_owner("dev@localhost", "dev").await.unwrap();
    assert_eq!(first.user_id, second.user_id);
    assert_ne!(first.sandbox_id, second.sandbox_id);
    assert_eq!(stage.count("select count(*) from api_keys").await, 2);
    let context = stage.caller(second.api_key.expose(), Some(&second.sandbox_id)).await;
    assert!(context.principal.access.is_some());
}
