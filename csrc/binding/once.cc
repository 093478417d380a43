// Run-once: begin, cancel, finish, abandon; reading and forgetting records.

#include <cstring>
#include <utility>

#include "binding/convert.h"

namespace holdfast {

namespace {

struct RunHandle : Handle {
    static constexpr Type kType = kRun;
    RunHandle(Environment *environment, uint32_t slot_number)
        : Handle(environment, slot_number, kType) {
    }
    void Free() override {
        if (run != nullptr) hf_run_free(run);
        run = nullptr;
    }
    hf_run *run = nullptr;
    std::string value; // of finish, borrowed by the core until it has ended
};

struct RecordHandle : Handle {
    static constexpr Type kType = kCall;
    RecordHandle(Environment *environment, uint32_t slot_number)
        : Handle(environment, slot_number, kType) {
    }
};

void OnBegun(void *data, hf_run *run, const hf_once_result *result) {
    auto *handle = static_cast<RunHandle *>(data);
    Environment *environment = handle->env;
    if (!environment->Hears(handle)) return;
    Record &record = environment->Push(handle, kBegun);
    if (result->error != nullptr) {
        environment->AttachError(record, *result->error);
        record.second = MillisecondsNumber(result->left_ms);
    } else {
        record.first = static_cast<double>(result->fence);
        record.second = result->attempt;
    }
    if (result->error == nullptr && !result->replay) {
        std::memcpy(record.token, hf_run_token(run)->bytes, sizeof record.token);
    } else {
        environment->Retire(handle);
    }
    if (result->error == nullptr && result->replay) {
        environment->OpenScope();
        record.flags |= kYes;
        if (result->is_error) record.flags |= kIsError;
        if (result->format == HF_BYTES) record.flags |= kIsBytes;
        environment->Attach(record, ValueOf(environment->env(), result->value, result->format));
    }
    environment->Settle();
}

void PushOutcome(RunHandle *handle, Event event, const hf_error *error) {
    Environment *environment = handle->env;
    if (!environment->Hears(handle)) return;
    Record &record = environment->Push(handle, event);
    if (error != nullptr) environment->AttachError(record, *error);
    environment->Settle();
}

void OnRunLost(void *data, hf_run *, const hf_error *why) {
    PushOutcome(static_cast<RunHandle *>(data), kLost, why);
}

void OnFinished(void *data, hf_run *, const hf_error *error) {
    PushOutcome(static_cast<RunHandle *>(data), kFinished, error);
}

void OnAbandoned(void *data, hf_run *, const hf_error *error) {
    PushOutcome(static_cast<RunHandle *>(data), kAbandoned, error);
}

// begin(client, slot, key, ttl, lease, wait, maxStall, failOnCrash, fingerprint) -> null | error
napi_value Begin(napi_env env, napi_callback_info info) {
    const Arguments<9> args(env, info);
    Environment *environment = args.environment();
    const ClientHandle *client = args.Handle<ClientHandle>(0);
    if (client == nullptr) return ClosedResult(env);
    const Key key(env, args[2]);
    const std::string fingerprint = Bytes(env, args[8]);
    hf_once_options options{};
    options.key = key.slice();
    options.ttl_ms = args.Duration(3);
    options.lease_ms = args.Duration(4);
    options.wait_ms = args.Duration(5);
    options.max_stall_ms = args.Duration(6);
    options.fail_on_crash = args.Uint(7) != 0;
    options.fingerprint = Slice(fingerprint);
    auto *handle = new RunHandle(environment, args.Uint(1));
    hf_error error{};
    const hf_code code =
        hf_once_begin(client->client, &options, OnBegun, OnRunLost, handle, &handle->run, &error);
    if (code == HF_OK) {
        environment->Put(handle);
    } else {
        delete handle;
    }
    return StartResult(env, code, error);
}

// cancelRun(slot)
napi_value CancelRun(napi_env env, napi_callback_info info) {
    const Arguments<1> args(env, info);
    const RunHandle *handle = args.Handle<RunHandle>(0);
    if (handle != nullptr) hf_run_cancel(handle->run);
    return nullptr;
}

// finish(slot, value, isBytes, isError) -> null | error
napi_value Finish(napi_env env, napi_callback_info info) {
    const Arguments<4> args(env, info);
    RunHandle *handle = args.Handle<RunHandle>(0);
    if (handle == nullptr) return ClosedResult(env);
    handle->value = Bytes(env, args[1]);
    const uint8_t format = args.Uint(2) != 0 ? HF_BYTES : HF_JSON;
    const hf_code code = hf_run_finish(handle->run, Slice(handle->value), format, args.Uint(3) != 0,
                                       OnFinished, handle);
    return StartResult(env, code, LocalError(code));
}

// abandon(slot) -> boolean: false when nothing is claimed (any more) and no result will come
napi_value Abandon(napi_env env, napi_callback_info info) {
    const Arguments<1> args(env, info);
    RunHandle *handle = args.Handle<RunHandle>(0);
    const bool pending =
        handle != nullptr && hf_run_abandon(handle->run, OnAbandoned, handle) == HF_OK;
    napi_value result = nullptr;
    napi_get_boolean(env, pending, &result);
    return result;
}

// freeRun(slot)
napi_value FreeRun(napi_env env, napi_callback_info info) {
    const Arguments<1> args(env, info);
    RunHandle *handle = args.Handle<RunHandle>(0);
    if (handle != nullptr) args.environment()->Retire(handle);
    return nullptr;
}

// [flags, attempt, leaseLeft, keptLeft, storedMs, value]
napi_value RecordValue(napi_env env, const hf_record &record) {
    uint32_t flags = 0;
    if (record.claimed) flags |= kClaimed;
    if (record.is_error) flags |= kIsError;
    if (record.format == HF_BYTES) flags |= kIsBytes;
    Napi::Array value = Napi::Array::New(env, 6);
    value.Set(0u, Napi::Number::New(env, flags));
    value.Set(1u, Napi::Number::New(env, record.attempt));
    value.Set(2u, Napi::Value(env, Milliseconds(env, record.lease_left_ms)));
    value.Set(3u, Napi::Value(env, Milliseconds(env, record.kept_left_ms)));
    value.Set(4u, Napi::Number::New(env, static_cast<double>(record.stored_us) / 1000.0));
    if (!record.claimed) {
        value.Set(5u, Napi::Value(env, ValueOf(env, record.value, record.format)));
    }
    return value;
}

void OnRecord(void *data, const hf_record *record, const hf_error *error) {
    auto *handle = static_cast<RecordHandle *>(data);
    Environment *environment = handle->env;
    if (!environment->Hears(handle)) return;
    Record &result = environment->Push(handle, kRecord);
    if (error != nullptr) {
        environment->AttachError(result, *error);
    } else if (record->present) {
        environment->OpenScope();
        result.flags |= kPresent;
        environment->Attach(result, RecordValue(environment->env(), *record));
    }
    environment->Retire(handle);
    environment->Settle();
}

void OnForgotten(void *data, bool existed, const hf_error *error) {
    auto *handle = static_cast<RecordHandle *>(data);
    Environment *environment = handle->env;
    if (!environment->Hears(handle)) return;
    Record &result = environment->Push(handle, kForgotten);
    if (existed) result.flags |= kYes;
    if (error != nullptr) environment->AttachError(result, *error);
    environment->Retire(handle);
    environment->Settle();
}

// record(client, slot, key) -> null | error
napi_value GetRecord(napi_env env, napi_callback_info info) {
    const Arguments<3> args(env, info);
    const ClientHandle *client = args.Handle<ClientHandle>(0);
    if (client == nullptr) return ClosedResult(env);
    const Key key(env, args[2]);
    auto *handle = new RecordHandle(args.environment(), args.Uint(1));
    hf_error error{};
    const hf_code code = hf_record_get(client->client, key.slice(), OnRecord, handle, &error);
    if (code == HF_OK) {
        args.environment()->Put(handle);
    } else {
        delete handle;
    }
    return StartResult(env, code, error);
}

// forget(client, slot, key) -> null | error
napi_value Forget(napi_env env, napi_callback_info info) {
    const Arguments<3> args(env, info);
    const ClientHandle *client = args.Handle<ClientHandle>(0);
    if (client == nullptr) return ClosedResult(env);
    const Key key(env, args[2]);
    auto *handle = new RecordHandle(args.environment(), args.Uint(1));
    hf_error error{};
    const hf_code code = hf_record_forget(client->client, key.slice(), OnForgotten, handle, &error);
    if (code == HF_OK) {
        args.environment()->Put(handle);
    } else {
        delete handle;
    }
    return StartResult(env, code, error);
}

} // namespace

void DefineOnce(napi_env env, napi_value exports, Environment *environment) {
    Define(env, exports, environment, "begin", Begin);
    Define(env, exports, environment, "cancelRun", CancelRun);
    Define(env, exports, environment, "finish", Finish);
    Define(env, exports, environment, "abandon", Abandon);
    Define(env, exports, environment, "freeRun", FreeRun);
    Define(env, exports, environment, "record", GetRecord);
    Define(env, exports, environment, "forget", Forget);
}

} // namespace holdfast
