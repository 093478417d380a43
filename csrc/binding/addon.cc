// The addon: its clients, and what it exports.

#include "binding/convert.h"

#include <string.h>

namespace holdfast {

namespace {

struct CallHandle : Handle {
    static constexpr Type kType = kCall;
    CallHandle(Environment *environment, uint32_t slot_number)
        : Handle(environment, slot_number, kType) {
    }
    ClientHandle *client = nullptr;
};

// listen(callback, arrayBuffer): where results go
napi_value Listen(napi_env env, napi_callback_info info) {
    const Arguments<2> args(env, info);
    args.environment()->Listen(args[0], args[1]);
    return nullptr;
}

// exit(): releases what is held; blocks for half a second at most
napi_value Exit(napi_env env, napi_callback_info info) {
    const Arguments<1> args(env, info);
    args.environment()->Exit();
    return nullptr;
}

// renewals(on)
napi_value Renewals(napi_env env, napi_callback_info info) {
    const Arguments<1> args(env, info);
    bool on = false;
    napi_get_value_bool(env, args[0], &on);
    if (args.environment()->engine() != nullptr)
        hf_engine_renewals(args.environment()->engine(), on);
    return nullptr;
}

// JavaScript is to call the client's function; givePassword() has what it gives.
void OnPassword(void *data, hf_password *question) {
    auto *handle = static_cast<ClientHandle *>(data);
    Environment *environment = handle->env;
    if (!environment->Hears(handle)) {
        hf_password_give(question, {nullptr, 0}, "the environment has ended");
        return;
    }
    Record &record = environment->Push(handle, kPassword);
    record.first = environment->KeepQuestion(question);
    environment->Settle();
}

// givePassword(number, password, failure): one of the two is a string, the other undefined
napi_value GivePassword(napi_env env, napi_callback_info info) {
    const Arguments<3> args(env, info);
    hf_password *question = args.environment()->TakeQuestion(args.Uint(0));
    if (question == nullptr) return nullptr;
    std::string password = Bytes(env, args[1]);
    const std::string failure = Bytes(env, args[2]);
    napi_valuetype type = napi_undefined;
    napi_typeof(env, args[2], &type);
    hf_password_give(question, Slice(password), type == napi_string ? failure.c_str() : nullptr);
    explicit_bzero(password.data(), password.size());
    return nullptr;
}

// openClient(slot, url, handoffs, handoffTime, [name, value, ...], asks) -> null | error
// `asks`: there is a function that gives the password.
napi_value OpenClient(napi_env env, napi_callback_info info) {
    const Arguments<6> args(env, info);
    Environment *environment = args.environment();
    hf_error error{};
    if (!environment->Open(&error)) return ErrorValue(env, error);
    const std::string url = Bytes(env, args[1]);
    const Settings settings(env, args[4]);
    auto *handle = new ClientHandle(environment, args.Uint(0));
    hf_client_options options{};
    options.handoffs = args.Uint(2);
    options.handoff_ms = args.Duration(3);
    options.settings = settings.data();
    options.n_settings = settings.size();
    bool asks = false;
    napi_get_value_bool(env, args[5], &asks);
    if (asks) options.password = OnPassword;
    options.password_data = handle;
    const hf_code code =
        hf_client_open(environment->engine(), Slice(url), &options, &handle->client, &error);
    if (code == HF_OK) {
        environment->Put(handle);
    } else {
        delete handle;
    }
    return StartResult(env, code, error);
}

void OnConnected(void *data, const hf_error *error, const hf_vote *votes, size_t count) {
    auto *handle = static_cast<CallHandle *>(data);
    Environment *environment = handle->env;
    if (!environment->Hears(handle)) return;
    Record &record = environment->Push(handle, kConnected);
    if (error != nullptr) {
        environment->OpenScope();
        record.flags |= kFailed;
        environment->Attach(record, ErrorValue(environment->env(), *error, votes, count));
    }
    environment->Retire(handle);
    environment->Settle();
}

// connect(client, slot) -> null | error
napi_value Connect(napi_env env, napi_callback_info info) {
    const Arguments<2> args(env, info);
    const ClientHandle *client = args.Handle<ClientHandle>(0);
    if (client == nullptr) return ClosedResult(env);
    auto *handle = new CallHandle(args.environment(), args.Uint(1));
    const hf_code code = hf_client_connect(client->client, OnConnected, handle);
    if (code == HF_OK) {
        args.environment()->Put(handle);
    } else {
        delete handle;
    }
    return StartResult(env, code, LocalError(code));
}

void OnClosed(void *data) {
    auto *handle = static_cast<CallHandle *>(data);
    Environment *environment = handle->env;
    if (!environment->Hears(handle)) return;
    environment->Push(handle, kClosed);
    environment->Retire(handle->client);
    environment->Retire(handle);
    environment->Settle();
}

// close(client, slot, timeout) -> boolean: false when it is closed already. Without a slot
// (undefined) it only shortens the time of an earlier call.
napi_value Close(napi_env env, napi_callback_info info) {
    const Arguments<3> args(env, info);
    ClientHandle *client = args.Handle<ClientHandle>(0);
    napi_valuetype type = napi_undefined;
    napi_typeof(env, args[1], &type);
    napi_value result = nullptr;
    napi_get_boolean(env, client != nullptr, &result);
    if (client == nullptr) return result;
    if (type == napi_undefined) {
        hf_client_close(client->client, args.Duration(2), nullptr, nullptr);
        return result;
    }
    auto *handle = new CallHandle(args.environment(), args.Uint(1));
    handle->client = client;
    args.environment()->Put(handle);
    hf_client_close(client->client, args.Duration(2), OnClosed, handle);
    return result;
}

// info(client) -> [store, caps, the longest time to live of a lock]
napi_value Info(napi_env env, napi_callback_info info) {
    const Arguments<1> args(env, info);
    const ClientHandle *client = args.Handle<ClientHandle>(0);
    if (client == nullptr) return nullptr;
    const Napi::Array result = Napi::Array::New(env, 2);
    result.Set(0u, Napi::String::New(env, hf_client_store(client->client)));
    result.Set(1u, Napi::Number::New(env, hf_client_caps(client->client)));
    result.Set(2u, Napi::Value(env, Milliseconds(env, hf_client_max_ttl_ms(client->client))));
    return result;
}

// nodes(client) -> [[name, state, reason, left]...], empty where the store is no quorum
napi_value Nodes(napi_env env, napi_callback_info info) {
    const Arguments<1> args(env, info);
    const ClientHandle *client = args.Handle<ClientHandle>(0);
    const size_t count = client == nullptr ? 0 : hf_client_nodes(client->client, nullptr, 0);
    std::vector<hf_node> nodes(count);
    const Napi::Array result = Napi::Array::New(env, count);
    if (count > 0) hf_client_nodes(client->client, nodes.data(), count);
    for (uint32_t i = 0; i < count; i++)
        result.Set(i, Napi::Value(env, NodeValue(env, nodes[i])));
    return result;
}

struct Constant {
    const char *name;
    double value;
};

// The numbers that JavaScript must not keep a second list of.
const Constant kConstants[] = {
    {"EVENT_ACQUIRED", kAcquired},
    {"EVENT_LOST", kLost},
    {"EVENT_RELEASED", kReleased},
    {"EVENT_EXTENDED", kExtended},
    {"EVENT_BEGUN", kBegun},
    {"EVENT_FINISHED", kFinished},
    {"EVENT_ABANDONED", kAbandoned},
    {"EVENT_OP_DONE", kOpDone},
    {"EVENT_RECORD", kRecord},
    {"EVENT_FORGOTTEN", kForgotten},
    {"EVENT_CONNECTED", kConnected},
    {"EVENT_CLOSED", kClosed},
    {"EVENT_WARNING", kWarning},
    {"EVENT_RENEWED", kRenewed},
    {"EVENT_PASSWORD", kPassword},
    {"EVENT_NODE", kNode},
    {"EVENT_HOLDERS", kHolders},
    {"EVENT_PG_ROWS", kPgRows},
    {"EVENT_PG_BEGUN", kPgBegun},
    {"EVENT_PG_ENDED", kPgEnded},
    {"VOTE_FOR", HF_VOTE_FOR},
    {"VOTE_AGAINST", HF_VOTE_AGAINST},
    {"VOTE_DOWN", HF_VOTE_DOWN},
    {"VOTE_QUARANTINED", HF_VOTE_QUARANTINED},
    {"NODE_DOWN", HF_NODE_DOWN},
    {"NODE_QUARANTINED", HF_NODE_QUARANTINED},
    {"NODE_VOTING", HF_NODE_VOTING},
    {"NODE_RESTARTED", HF_NODE_RESTARTED},
    {"NODE_EMPTIED", HF_NODE_EMPTIED},
    {"NODE_CLOCK", HF_NODE_CLOCK},
    {"NODE_TOLD", HF_NODE_TOLD},
    {"RECORD_FAILED", kFailed},
    {"RECORD_YES", kYes},
    {"RECORD_HELD_HERE", kHeldHere},
    {"RECORD_IS_ERROR", kIsError},
    {"RECORD_IS_BYTES", kIsBytes},
    {"RECORD_PRESENT", kPresent},
    {"RECORD_CLAIMED", kClaimed},
    {"RECORD_REFUSAL_SHIFT", kRefusalShift},
    {"RECORD_SIZE", sizeof(Record)},
    {"LOCK_RENEW", kRenew},
    {"LOCK_VOTES", kVotes},
    {"ADVISORY_SHARED", kShared},
    {"ADVISORY_DEDICATED", kDedicated},
    {"PG_PARAMS_MAX", HF_PG_PARAMS_MAX},
    {"PG_DEFAULT", HF_PG_DEFAULT},
    {"PG_READ_COMMITTED", HF_PG_READ_COMMITTED},
    {"PG_REPEATABLE_READ", HF_PG_REPEATABLE_READ},
    {"PG_SERIALIZABLE", HF_PG_SERIALIZABLE},
    {"RELEASE_PENDING", kReleasePending},
    {"RELEASE_LOST", kReleaseLost},
    {"RELEASE_GONE", kReleaseGone},
    {"RELEASE_NOMEM", kReleaseNoMemory},
    {"KEY_MAX", HF_KEY_MAX},
    {"KEYS_MAX", HF_KEYS_MAX},
    {"HANDOFFS", HF_HANDOFFS},
    {"HANDOFFS_MAX", HF_HANDOFFS_MAX},
    {"HANDOFF_TIME", HF_HANDOFF_MS},
    {"NOTE_MAX", HF_NOTE_MAX},
    {"SHARED", HF_SHARED},
    {"TTL_MIN", HF_TTL_MIN},
    {"TTL_MAX", HF_TTL_MAX},
    {"VALUE_MAX", HF_VALUE_MAX},
    {"OUTCOME_MAX", HF_RECORD_MAX},
    {"FLAG_RETRYABLE", HF_RETRYABLE},
    {"FLAG_OUTCOME_UNKNOWN", HF_OUTCOME_UNKNOWN},
    {"IF_ANY", HF_IF_ANY},
    {"IF_ABSENT", HF_IF_ABSENT},
    {"IF_VERSION", HF_IF_VERSION},
    {"OP_KEEP_TTL", HF_OP_KEEP_TTL},
    {"OP_WANT_ENTRY", HF_OP_WANT_ENTRY},
    {"OP_EXACT", HF_OP_EXACT},
    {"OP_NEXT", HF_OP_NEXT},
    {"OP_HAS_MIN", HF_OP_HAS_MIN},
    {"OP_HAS_MAX", HF_OP_HAS_MAX},
    {"REFUSED_PRESENT", HF_REFUSED_PRESENT},
    {"REFUSED_VERSION", HF_REFUSED_VERSION},
    {"REFUSED_FENCE", HF_REFUSED_FENCE},
    {"REFUSED_FENCE_KEY", HF_REFUSED_FENCE_KEY},
    {"REFUSED_BOUNDS", HF_REFUSED_BOUNDS},
    {"REFUSED_TYPE", HF_REFUSED_TYPE},
};

Napi::Object Constants(Napi::Env env) {
    Napi::Object constants = Napi::Object::New(env);
    for (const Constant &constant : kConstants) {
        constants.Set(constant.name, Napi::Number::New(env, constant.value));
    }
    return constants;
}

// Every error code's name, with the sentence that stands where nothing more is known.
Napi::Object Codes(Napi::Env env) {
    Napi::Object codes = Napi::Object::New(env);
    for (int code = HF_OK + 1; code < HF_CODE_COUNT; code++) {
        const auto each = static_cast<hf_code>(code);
        codes.Set(hf_code_name(each), Napi::String::New(env, hf_code_text(each)));
    }
    return codes;
}

void DeleteEnvironment(napi_env, void *data, void *) {
    delete static_cast<Environment *>(data);
}

} // namespace

void DefineClient(napi_env env, napi_value exports, Environment *environment) {
    Define(env, exports, environment, "listen", Listen);
    Define(env, exports, environment, "exit", Exit);
    Define(env, exports, environment, "renewals", Renewals);
    Define(env, exports, environment, "openClient", OpenClient);
    Define(env, exports, environment, "givePassword", GivePassword);
    Define(env, exports, environment, "connect", Connect);
    Define(env, exports, environment, "close", Close);
    Define(env, exports, environment, "info", Info);
    Define(env, exports, environment, "nodes", Nodes);
}

static Napi::Object Init(Napi::Env env, Napi::Object exports) {
    auto *environment = new Environment(env);
    napi_set_instance_data(env, environment, DeleteEnvironment, nullptr);
    DefineClient(env, exports, environment);
    DefineLock(env, exports, environment);
    DefineOnce(env, exports, environment);
    DefineOps(env, exports, environment);
    DefinePostgres(env, exports, environment);
    DefineSql(env, exports, environment);
    exports.Set("constants", Constants(env));
    exports.Set("codes", Codes(env));
    exports.Set("version", Napi::String::New(env, HF_VERSION));
    return exports;
}

NODE_API_MODULE(holdfast, Init)

} // namespace holdfast
