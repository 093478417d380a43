// What only PostgreSQL gives: advisory locks, and who holds them.

#include "binding/convert.h"

namespace holdfast {

namespace {

struct AdvisoryHandle : Handle {
    static constexpr Type kType = kAdvisory;
    AdvisoryHandle(Environment *environment, uint32_t slot_number)
        : Handle(environment, slot_number, kType) {
    }
    void Free() override {
        if (lock != nullptr) hf_pg_lock_free(lock);
        lock = nullptr;
    }
    hf_pg_lock *lock = nullptr;
};

// One list on its way.
struct HoldersHandle : Handle {
    static constexpr Type kType = kCall;
    HoldersHandle(Environment *environment, uint32_t slot_number)
        : Handle(environment, slot_number, kType) {
    }
};

void OnAcquired(void *data, hf_pg_lock *, const hf_pg_lock_result *result) {
    auto *handle = static_cast<AdvisoryHandle *>(data);
    Environment *environment = handle->env;
    if (!environment->Hears(handle)) return;
    Record &record = environment->Push(handle, kAcquired);
    record.second = static_cast<double>(result->waited_ms);
    if (result->held_here) record.flags |= kHeldHere;
    if (result->error != nullptr) {
        environment->AttachError(record, *result->error);
        environment->Retire(handle);
    }
    environment->Settle();
}

void OnLost(void *data, hf_pg_lock *, const hf_error *why) {
    auto *handle = static_cast<AdvisoryHandle *>(data);
    Environment *environment = handle->env;
    if (!environment->Hears(handle)) return;
    environment->AttachError(environment->Push(handle, kLost), *why);
    environment->Retire(handle);
    environment->Settle();
}

void OnReleased(void *data, hf_pg_lock *, bool was_held, const hf_error *error) {
    auto *handle = static_cast<AdvisoryHandle *>(data);
    Environment *environment = handle->env;
    if (!environment->Hears(handle)) return;
    Record &record = environment->Push(handle, kReleased);
    if (was_held) record.flags |= kYes;
    if (error != nullptr) environment->AttachError(record, *error);
    environment->Retire(handle);
    environment->Settle();
}

// acquireAdvisory(client, slot, bigint | undefined, first, second, flags, wait) -> null | error
napi_value Acquire(napi_env env, napi_callback_info info) {
    const Arguments<7> args(env, info);
    Environment *environment = args.environment();
    const ClientHandle *client = args.Handle<ClientHandle>(0);
    if (client == nullptr) return ClosedResult(env);
    hf_pg_lock_options options{};
    bool lossless = false;
    options.id.pair =
        napi_get_value_bigint_int64(env, args[2], &options.id.number, &lossless) != napi_ok;
    options.id.first = static_cast<int32_t>(args.Signed(3));
    options.id.second = static_cast<int32_t>(args.Signed(4));
    options.shared = (args.Uint(5) & kShared) != 0;
    options.dedicated = (args.Uint(5) & kDedicated) != 0;
    options.wait_ms = args.Duration(6);
    auto *handle = new AdvisoryHandle(environment, args.Uint(1));
    hf_error error{};
    const hf_code code = hf_pg_lock_acquire(client->client, &options, OnAcquired, OnLost, handle,
                                            &handle->lock, &error);
    if (code == HF_OK) {
        environment->Put(handle);
    } else {
        delete handle;
    }
    return StartResult(env, code, error);
}

// cancelAdvisory(slot)
napi_value Cancel(napi_env env, napi_callback_info info) {
    const Arguments<1> args(env, info);
    const AdvisoryHandle *handle = args.Handle<AdvisoryHandle>(0);
    if (handle != nullptr) hf_pg_lock_cancel(handle->lock);
    return nullptr;
}

// heldAdvisory(slot) -> boolean
napi_value Held(napi_env env, napi_callback_info info) {
    const Arguments<1> args(env, info);
    const AdvisoryHandle *handle = args.Handle<AdvisoryHandle>(0);
    napi_value result = nullptr;
    napi_get_boolean(env, handle != nullptr && hf_pg_lock_held(handle->lock), &result);
    return result;
}

// releaseAdvisory(slot) -> RELEASE_PENDING: a result will come; RELEASE_LOST: it was lost, and
// nothing more will come; RELEASE_GONE: it was lost, and the result that says so is on its way.
napi_value Release(napi_env env, napi_callback_info info) {
    const Arguments<1> args(env, info);
    AdvisoryHandle *handle = args.Handle<AdvisoryHandle>(0);
    uint32_t outcome = kReleaseGone;
    if (handle != nullptr) {
        outcome = kReleasePending;
        if (hf_pg_lock_release(handle->lock, OnReleased, handle) != HF_OK) {
            outcome = kReleaseLost;
            args.environment()->Retire(handle);
        }
    }
    napi_value result = nullptr;
    napi_create_uint32(env, outcome, &result);
    return result;
}

napi_value IdValue(napi_env env, const hf_pg_id &id) {
    napi_value value = nullptr;
    if (!id.pair) {
        napi_create_bigint_int64(env, id.number, &value);
        return value;
    }
    const Napi::Array pair = Napi::Array::New(env, 2);
    pair.Set(0u, Napi::Number::New(env, id.first));
    pair.Set(1u, Napi::Number::New(env, id.second));
    return pair;
}

// [id, shared, granted, here, pid, query's age, waiting, application]
napi_value HolderOf(napi_env env, const hf_pg_holder &holder) {
    const Napi::Array value = Napi::Array::New(env, 8);
    value.Set(0u, Napi::Value(env, IdValue(env, holder.id)));
    value.Set(1u, Napi::Boolean::New(env, holder.shared));
    value.Set(2u, Napi::Boolean::New(env, holder.granted));
    value.Set(3u, Napi::Boolean::New(env, holder.here));
    value.Set(4u, Napi::Number::New(env, holder.pid));
    value.Set(5u, Napi::Value(env, Milliseconds(env, holder.query_ms)));
    value.Set(6u, Napi::Value(env, Milliseconds(env, holder.waiting_ms)));
    value.Set(7u, Napi::String::New(env, holder.application));
    return value;
}

void OnHolders(void *data, const hf_pg_holder *holders, size_t count, const hf_error *error) {
    auto *handle = static_cast<HoldersHandle *>(data);
    Environment *environment = handle->env;
    if (!environment->Hears(handle)) return;
    const napi_env env = environment->env();
    Record &record = environment->Push(handle, kHolders);
    if (error != nullptr) {
        environment->AttachError(record, *error);
    } else {
        environment->OpenScope();
        const Napi::Array list = Napi::Array::New(env, count);
        for (uint32_t i = 0; i < count; i++)
            list.Set(i, Napi::Value(env, HolderOf(env, holders[i])));
        environment->Attach(record, list);
    }
    environment->Retire(handle);
    environment->Settle();
}

// advisoryHolders(client, slot) -> null | error
napi_value Holders(napi_env env, napi_callback_info info) {
    const Arguments<2> args(env, info);
    const ClientHandle *client = args.Handle<ClientHandle>(0);
    if (client == nullptr) return ClosedResult(env);
    auto *handle = new HoldersHandle(args.environment(), args.Uint(1));
    hf_error error{};
    const hf_code code = hf_pg_holders(client->client, OnHolders, handle, &error);
    if (code == HF_OK) {
        args.environment()->Put(handle);
    } else {
        delete handle;
    }
    return StartResult(env, code, error);
}

} // namespace

void DefinePostgres(napi_env env, napi_value exports, Environment *environment) {
    Define(env, exports, environment, "acquireAdvisory", Acquire);
    Define(env, exports, environment, "cancelAdvisory", Cancel);
    Define(env, exports, environment, "heldAdvisory", Held);
    Define(env, exports, environment, "releaseAdvisory", Release);
    Define(env, exports, environment, "advisoryHolders", Holders);
}

} // namespace holdfast
