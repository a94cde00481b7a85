// The preset `acme-c`: Acme keeps documents; reading and writing them needs
// different scopes.
//
// What is not said is zero, which means none or empty. All of it stands in the
// component's data; nothing is allocated.

#include <string.h>

#include "preset.h"

typedef countersign_preset_description_description_t description_t;
typedef exports_countersign_preset_provider_verdict_t verdict_t;

#define TEXT(text) {(uint8_t *)(text), sizeof(text) - 1}
#define READ "documents:read"
#define WRITE "documents:write"

// A template of nothing but text.
#define LITERAL(text) \
    {(countersign_preset_types_part_t[]){{.val.literal = TEXT(text)}}, 1}
// A list of one.
#define ONE(type, ...) {(type[]){__VA_ARGS__}, 1}
#define POINTER(text) ONE(preset_string_t, TEXT(text))

static countersign_preset_types_part_t bearer[] = {
    {.tag = COUNTERSIGN_PRESET_TYPES_PART_LITERAL, .val.literal = TEXT("Bearer ")},
    {.tag = COUNTERSIGN_PRESET_TYPES_PART_SLOT,
     .val.slot.tag = COUNTERSIGN_PRESET_TYPES_SLOT_ACCESS_TOKEN},
};

static countersign_preset_description_scope_t scopes[] = {
    {.name = TEXT(READ), .title = TEXT("Read documents")},
    {.name = TEXT(WRITE), .title = TEXT("Write documents"), .implies = POINTER(READ)},
};

static const description_t acme = {
    .name = TEXT("acme-c"),
    .display_name = TEXT("Acme"),
    .version = TEXT("0.1.0"),
    .authorization_hosts =
        ONE(countersign_preset_types_template_t, LITERAL("login.acme.example")),
    .audience_hosts = ONE(countersign_preset_types_template_t, LITERAL("api.acme.example")),
    .authorization =
        {.is_some = true,
         .val = {.endpoint = LITERAL("https://login.acme.example/authorize"),
                 .scope_parameters = ONE(countersign_preset_description_scope_parameter_t,
                                         {.name = TEXT("scope"), .separator = TEXT(" ")}),
                 .pkce = COUNTERSIGN_PRESET_DESCRIPTION_PKCE_SUPPORTED}},
    .token_endpoint = {.is_some = true, .val = LITERAL("https://login.acme.example/token")},
    .token_answer = {.error_code = POINTER("/error"),
                     .error_description = POINTER("/error_description")},
    .token_shapes = ONE(countersign_preset_description_token_shape_t,
                        {.credential = TEXT("user"),
                         .access_token = POINTER("/access_token"),
                         .refresh_token = POINTER("/refresh_token"),
                         .id_token = POINTER("/id_token"),
                         .expires = ONE(countersign_preset_description_expiry_t,
                                        {.val.lifetime = TEXT("/expires_in")}),
                         .scopes = POINTER("/scope"),
                         .scope_separators = POINTER(" ")}),
    .scopes = {scopes, sizeof scopes / sizeof *scopes},
    .default_scopes = POINTER(READ),
    .refresh = {.kind = COUNTERSIGN_PRESET_DESCRIPTION_REFRESH_KIND_REFRESH_TOKEN,
                .rotation = COUNTERSIGN_PRESET_DESCRIPTION_ROTATION_SOMETIMES,
                .margin_percent = 10},
    .credentials = ONE(countersign_preset_description_credential_t,
                       {.name = TEXT("user"),
                        .title = TEXT("Access token"),
                        .rules = ONE(countersign_preset_types_rule_t,
                                     {.val.set_header = {TEXT("authorization"), {bearer, 2}}})}),
};

bool exports_countersign_preset_provider_describe(preset_string_t *settings, description_t *ret,
                                                  preset_string_t *err) {
    (void)settings, (void)err;
    *ret = acme;
    return true;
}

static bool is(const preset_string_t *text, const char *word) {
    return text->len == strlen(word) && memcmp(text->ptr, word, text->len) == 0;
}

static bool begins(const preset_string_t *text, const char *word) {
    return text->len >= strlen(word) && memcmp(text->ptr, word, strlen(word)) == 0;
}

static bool has(const preset_list_string_t *list, const char *word) {
    for (size_t i = 0; i < list->len; i++) {
        if (is(&list->ptr[i], word)) return true;
    }
    return false;
}

bool exports_countersign_preset_provider_evaluate(
    exports_countersign_preset_provider_call_t *call,
    exports_countersign_preset_provider_grant_t *grant, verdict_t *ret, preset_string_t *err) {
    static preset_string_t read[] = {TEXT(READ)}, write[] = {TEXT(WRITE)};
    (void)err;
    memset(ret, 0, sizeof *ret);
    ret->tag = EXPORTS_COUNTERSIGN_PRESET_PROVIDER_VERDICT_ALLOW;
    if (!is(&call->method, "tools/call") || !call->name.is_some) return true;

    const preset_string_t *tool = &call->name.val;
    if (is(tool, "erase")) {
        ret->tag = EXPORTS_COUNTERSIGN_PRESET_PROVIDER_VERDICT_DENY;
        ret->val.deny = (exports_countersign_preset_provider_refusal_t){
            TEXT("not_for_agents"), TEXT("Only a person may erase: do it on acme.example.")};
        return true;
    }
    bool reads = begins(tool, "read_") || begins(tool, "list_");
    if (has(&grant->scopes, WRITE) || (reads && has(&grant->scopes, READ))) return true;
    ret->tag = EXPORTS_COUNTERSIGN_PRESET_PROVIDER_VERDICT_NEED_SCOPES;
    ret->val.need_scopes = (preset_list_string_t){reads ? read : write, 1};
    return true;
}
