// Locks: acquire, cancel, held, remaining, extend, release, waiters.

#include <cstring>
#include <vector>

#include "binding/convert.h"

namespace holdfast {

namespace {

struct LockHandle : Handle {
    static constexpr Type kType = kLock;
    LockHandle(Environment *environment, uint32_t slot_number)
        : Handle(environment, slot_number, kType) {
    }
    void Free() override {
        if (lock != nullptr) hf_lock_free(lock);
        lock = nullptr;
    }
    hf_lock *lock = nullptr;
};

// One extension on its way.
struct ExtendHandle : Handle {
    static constexpr Type kType = kCall;
    ExtendHandle(Environment *environment, uint32_t slot_number)
        : Handle(environment, slot_number, kType) {
    }
};

// [error, holder], the holder being null when none is known.
void AttachRefusal(Environment *environment, Record &record, const hf_lock_result &result) {
    const napi_env env = environment->env();
    environment->OpenScope();
    record.flags |= kFailed;
    if (result.held_here) record.flags |= kHeldHere;
    napi_value holder = nullptr;
    if (result.holder == nullptr) {
        napi_get_null(env, &holder);
    } else {
        holder = HolderValue(env, *result.holder);
    }
    Napi::Array pair = Napi::Array::New(env, 2);
    const napi_value error = ErrorValue(env, *result.error, result.votes, result.n_votes);
    pair.Set(0u, Napi::Value(env, error));
    pair.Set(1u, Napi::Value(env, holder));
    environment->Attach(record, pair);
}

void OnAcquired(void *data, hf_lock *lock, const hf_lock_result *result) {
    auto *handle = static_cast<LockHandle *>(data);
    Environment *environment = handle->env;
    if (!environment->Hears(handle)) return;
    Record &record = environment->Push(handle, kAcquired);
    record.second = static_cast<double>(result->waited_ms);
    if (result->error == nullptr) {
        record.first = static_cast<double>(hf_lock_fence(lock));
        std::memcpy(record.token, hf_lock_token(lock)->bytes, sizeof record.token);
    } else {
        AttachRefusal(environment, record, *result);
        environment->Retire(handle);
    }
    environment->Settle();
}

void OnLost(void *data, hf_lock *, const hf_error *why) {
    auto *handle = static_cast<LockHandle *>(data);
    Environment *environment = handle->env;
    if (!environment->Hears(handle)) return;
    Record &record = environment->Push(handle, kLost);
    if (why != nullptr) environment->AttachError(record, *why);
    environment->Retire(handle);
    environment->Settle();
}

// The votes of a quorum come along: those of an error within it.
void OnReleased(void *data, hf_lock *lock, bool was_held, const hf_error *error) {
    auto *handle = static_cast<LockHandle *>(data);
    Environment *environment = handle->env;
    if (!environment->Hears(handle)) return;
    Record &record = environment->Push(handle, kReleased);
    if (was_held) record.flags |= kYes;
    const hf_vote *votes = nullptr;
    const size_t count = hf_lock_votes(lock, &votes);
    if (error != nullptr) record.flags |= kFailed;
    if (error != nullptr || count > 0) {
        environment->OpenScope();
        const napi_env env = environment->env();
        environment->Attach(record, error != nullptr ? ErrorValue(env, *error, votes, count)
                                                     : VotesValue(env, votes, count));
    }
    environment->Retire(handle);
    environment->Settle();
}

void OnExtended(void *data, hf_lock *lock, const hf_error *error) {
    auto *handle = static_cast<ExtendHandle *>(data);
    Environment *environment = handle->env;
    if (!environment->Hears(handle)) return;
    Record &record = environment->Push(handle, kExtended);
    const hf_vote *votes = nullptr;
    const size_t count = hf_lock_votes(lock, &votes);
    if (error != nullptr) {
        environment->OpenScope();
        record.flags |= kFailed;
        environment->Attach(record, ErrorValue(environment->env(), *error, votes, count));
    }
    environment->Retire(handle);
    environment->Settle();
}

// acquire(client, slot, key | keys, ttl, wait, maxHold, maxStall, limit, flags, note)
//   -> null | error
napi_value Acquire(napi_env env, napi_callback_info info) {
    const Arguments<10> args(env, info);
    Environment *environment = args.environment();
    const ClientHandle *client = args.Handle<ClientHandle>(0);
    if (client == nullptr) return ClosedResult(env);
    const Keys keys(env, args[2]);
    hf_lock_options options{};
    options.keys = keys.slices();
    options.n_keys = keys.size();
    options.ttl_ms = args.Duration(3);
    options.wait_ms = args.Duration(4);
    options.max_hold_ms = args.Duration(5);
    options.max_stall_ms = args.Duration(6);
    options.limit = args.Uint(7);
    options.renew = (args.Uint(8) & kRenew) != 0;
    options.votes = (args.Uint(8) & kVotes) != 0;
    const Note note(env, args[9]);
    options.note = note.slice();
    auto *handle = new LockHandle(environment, args.Uint(1));
    hf_error error{};
    const hf_code code = hf_lock_acquire(client->client, &options, OnAcquired, OnLost, handle,
                                         &handle->lock, &error);
    if (code == HF_OK) {
        environment->Put(handle);
    } else {
        delete handle;
    }
    return StartResult(env, code, error);
}

// cancelLock(slot)
napi_value CancelLock(napi_env env, napi_callback_info info) {
    const Arguments<1> args(env, info);
    const LockHandle *handle = args.Handle<LockHandle>(0);
    if (handle != nullptr) hf_lock_cancel(handle->lock);
    return nullptr;
}

// held(slot) -> boolean
napi_value Held(napi_env env, napi_callback_info info) {
    const Arguments<1> args(env, info);
    const LockHandle *handle = args.Handle<LockHandle>(0);
    napi_value result = nullptr;
    napi_get_boolean(env, handle != nullptr && hf_lock_held(handle->lock), &result);
    return result;
}

// remaining(slot) -> ms
napi_value Remaining(napi_env env, napi_callback_info info) {
    const Arguments<1> args(env, info);
    const LockHandle *handle = args.Handle<LockHandle>(0);
    return Milliseconds(env, handle == nullptr ? 0 : hf_lock_remaining_ms(handle->lock));
}

// extend(lockSlot, slot, ttl) -> null | error
napi_value Extend(napi_env env, napi_callback_info info) {
    const Arguments<3> args(env, info);
    const LockHandle *handle = args.Handle<LockHandle>(0);
    if (handle == nullptr) return ErrorValue(env, LocalError(HF_ELOST));
    auto *extension = new ExtendHandle(args.environment(), args.Uint(1));
    const hf_code code = hf_lock_extend(handle->lock, args.Duration(2), OnExtended, extension);
    if (code == HF_OK) {
        args.environment()->Put(extension);
    } else {
        delete extension;
    }
    return StartResult(env, code, LocalError(code));
}

// release(slot) -> RELEASE_PENDING: a result will come; RELEASE_LOST: it was lost, and nothing
// more will come; RELEASE_GONE: it was lost, and the result that says so is on its way;
// RELEASE_NOMEM: it is given up, without memory to tell the store at once, and nothing more will
// come.
napi_value Release(napi_env env, napi_callback_info info) {
    const Arguments<1> args(env, info);
    LockHandle *handle = args.Handle<LockHandle>(0);
    uint32_t outcome = kReleaseGone;
    if (handle != nullptr) {
        const hf_code code = hf_lock_release(handle->lock, OnReleased, handle);
        if (code == HF_OK) {
            outcome = kReleasePending;
        } else {
            outcome = code == HF_ENOMEM ? kReleaseNoMemory : kReleaseLost;
            args.environment()->Retire(handle);
        }
    }
    napi_value result = nullptr;
    napi_create_uint32(env, outcome, &result);
    return result;
}

// votes(slot) -> [[node, vote, error | null]...] of the last answer about a lock that is held, or
// undefined
napi_value Votes(napi_env env, napi_callback_info info) {
    const Arguments<1> args(env, info);
    const LockHandle *handle = args.Handle<LockHandle>(0);
    const hf_vote *votes = nullptr;
    const size_t count = handle == nullptr ? 0 : hf_lock_votes(handle->lock, &votes);
    return VotesValue(env, votes, count);
}

// waiters(client, key, max) -> [count, [waited in ms, limit, note]...]: up to `max` of them
napi_value Waiters(napi_env env, napi_callback_info info) {
    const Arguments<3> args(env, info);
    const ClientHandle *client = args.Handle<ClientHandle>(0);
    const Napi::Array result = Napi::Array::New(env, 1);
    size_t count = 0;
    if (client != nullptr) {
        const Key key(env, args[1]);
        const uint32_t max = args.Uint(2);
        count = hf_lock_waiters(client->client, key.slice(), nullptr, 0);
        std::vector<hf_waiter> waiters(count < max ? count : max);
        hf_lock_waiters(client->client, key.slice(), waiters.data(), waiters.size());
        uint32_t at = 1;
        for (const hf_waiter &waiter : waiters) {
            const Napi::Array each = Napi::Array::New(env, 3);
            each.Set(0u, Napi::Value(env, Milliseconds(env, waiter.waited_ms)));
            each.Set(1u, Napi::Number::New(env, waiter.limit));
            each.Set(2u, Napi::String::New(env, waiter.note.data, waiter.note.len));
            result.Set(at++, each);
        }
    }
    result.Set(0u, Napi::Number::New(env, static_cast<double>(count)));
    return result;
}

} // namespace

void DefineLock(napi_env env, napi_value exports, Environment *environment) {
    Define(env, exports, environment, "acquire", Acquire);
    Define(env, exports, environment, "cancelLock", CancelLock);
    Define(env, exports, environment, "held", Held);
    Define(env, exports, environment, "remaining", Remaining);
    Define(env, exports, environment, "extend", Extend);
    Define(env, exports, environment, "release", Release);
    Define(env, exports, environment, "votes", Votes);
    Define(env, exports, environment, "waiters", Waiters);
}

} // namespace holdfast
