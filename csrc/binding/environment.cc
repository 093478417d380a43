#include "binding/environment.h"

#include <uv.h>

#include <cstring>

#include "binding/convert.h"

namespace holdfast {

namespace {

// How long the end of a process or worker waits for the leases to be dropped.
constexpr uint64_t kExitTimeoutMs = 500;

// What a series leaves behind for the next: more than this is given back to the system.
constexpr size_t kKeepRecords = 4096;

void ReportPendingException(napi_env env) {
    napi_value error = nullptr;
    if (napi_get_and_clear_last_exception(env, &error) != napi_ok) return;
    // A worker that is being terminated has no exception to show.
    napi_valuetype type = napi_undefined;
    if (napi_typeof(env, error, &type) != napi_ok || type != napi_object) return;
    napi_fatal_exception(env, error);
}

} // namespace

Environment::Environment(napi_env env) : env_(env) {
}

Environment::~Environment() {
    if (callback_ != nullptr) napi_delete_reference(env_, callback_);
    if (buffer_ != nullptr) napi_delete_reference(env_, buffer_);
}

bool Environment::Open(hf_error *error) {
    if (engine_ != nullptr) return true;
    uv_loop_s *loop = nullptr;
    if (napi_get_uv_event_loop(env_, &loop) != napi_ok) {
        *error = LocalError(HF_EIO);
        return false;
    }
    hf_engine_options options{};
    options.enter = Enter;
    options.leave = Leave;
    options.event = OnEvent;
    options.data = this;
    if (hf_engine_open(loop, &options, &engine_, error) != HF_OK) {
        engine_ = nullptr;
        return false;
    }
    context_ = std::make_unique<Napi::AsyncContext>(env_, "HOLDFAST");
    // Hooks run last-in first-out, so that what Node registered before us is still there for ours.
    napi_add_async_cleanup_hook(env_, OnCleanup, this, &hook_);
    return true;
}

void Environment::Listen(napi_value callback, napi_value buffer) {
    void *data = nullptr;
    size_t size = 0;
    if (napi_get_arraybuffer_info(env_, buffer, &data, &size) != napi_ok) return;
    napi_create_reference(env_, callback, 1, &callback_);
    napi_create_reference(env_, buffer, 1, &buffer_);
    shared_ = static_cast<Record *>(data);
    shared_size_ = static_cast<uint32_t>(size / sizeof(Record));
}

void Environment::Exit() {
    if (engine_ != nullptr && !closing_) hf_engine_exit(engine_, kExitTimeoutMs);
}

void Environment::Put(Handle *handle) {
    if (handle->slot >= handles_.size()) handles_.resize(handle->slot + 1, nullptr);
    handles_[handle->slot] = handle;
}

void Environment::Retire(Handle *handle) {
    if (closing_ || handle->retired) return; // the end of the environment deletes them all
    handle->retired = true;
    if (handles_[handle->slot] == handle) handles_[handle->slot] = nullptr;
    retired_.push_back(handle);
}

void Environment::Bury() {
    for (Handle *handle : retired_) {
        handle->Free();
        delete handle;
    }
    retired_.clear();
}

Record &Environment::Push(const Handle *handle, Event event) {
    Record record{};
    record.slot = handle == nullptr ? -1 : static_cast<int32_t>(handle->slot);
    record.event = event;
    record.extra = -1;
    queue_.push_back(record);
    return queue_.back();
}

void Environment::Attach(Record &record, napi_value value) {
    record.extra = static_cast<int32_t>(extras_.size());
    extras_.push_back(value);
}

void Environment::AttachError(Record &record, const hf_error &error) {
    OpenScope();
    record.flags |= kFailed;
    Attach(record, ErrorValue(env_, error));
}

uint32_t Environment::KeepQuestion(hf_password *question) {
    questions_[++last_question_] = question;
    return last_question_;
}

hf_password *Environment::TakeQuestion(uint32_t number) {
    const auto found = questions_.find(number);
    if (found == questions_.end()) return nullptr;
    hf_password *question = found->second;
    questions_.erase(found);
    return question;
}

void Environment::OpenScope() {
    if (scope_ == nullptr) napi_open_handle_scope(env_, &scope_);
}

void Environment::Settle() {
    if (in_series_ || closing_) return;
    Flush();
}

void Environment::Enter(void *data) {
    static_cast<Environment *>(data)->in_series_ = true;
}

void Environment::Leave(void *data) {
    auto *self = static_cast<Environment *>(data);
    self->in_series_ = false;
    if (!self->closing_) self->Flush();
}

void Environment::Flush() {
    // Before JavaScript hears of it: from then on it may use the slots again.
    Bury();
    if (queue_.empty()) return;
    OpenScope();
    napi_handle_scope scope = scope_;
    scope_ = nullptr;
    batch_.swap(queue_);
    napi_value extras = nullptr;
    if (!extras_.empty()) {
        napi_create_array_with_length(env_, extras_.size(), &extras);
        for (size_t i = 0; i < extras_.size(); i++) {
            napi_set_element(env_, extras, static_cast<uint32_t>(i), extras_[i]);
        }
        extras_.clear();
    }
    napi_value callback = nullptr;
    napi_get_reference_value(env_, callback_, &callback);
    {
        // Its end runs the microtasks, and with them the code that waited.
        Napi::CallbackScope series(env_, *context_);
        for (size_t done = 0; done < batch_.size();) {
            const size_t left = batch_.size() - done;
            const uint32_t count = left < shared_size_ ? static_cast<uint32_t>(left) : shared_size_;
            std::memcpy(shared_, batch_.data() + done, count * sizeof(Record));
            Deliver(callback, count, extras);
            done += count;
        }
    }
    batch_.clear();
    if (batch_.capacity() > kKeepRecords) batch_.shrink_to_fit();
    napi_close_handle_scope(env_, scope);
}

void Environment::Deliver(napi_value callback, uint32_t count, napi_value extras) {
    napi_value arguments[2];
    napi_value receiver = nullptr;
    napi_get_undefined(env_, &receiver);
    napi_create_uint32(env_, count, &arguments[0]);
    arguments[1] = extras == nullptr ? receiver : extras;
    if (napi_call_function(env_, receiver, callback, 2, arguments, nullptr) ==
        napi_pending_exception) {
        ReportPendingException(env_);
    }
}

int32_t Environment::SlotOf(const hf_client *client) const {
    if (client == nullptr) return -1;
    for (const Handle *handle : handles_) {
        if (handle == nullptr || handle->type != Handle::kClient) continue;
        if (static_cast<const ClientHandle *>(handle)->client == client) {
            return static_cast<int32_t>(handle->slot);
        }
    }
    return -1;
}

void Environment::OnEvent(void *data, const hf_event *event) {
    auto *self = static_cast<Environment *>(data);
    if (self->closing_) return;
    const Event kind = event->kind == HF_EVENT_RENEWED ? kRenewed
                       : event->kind == HF_EVENT_NODE  ? kNode
                                                       : kWarning;
    Record &record = self->Push(nullptr, kind);
    record.slot = self->SlotOf(event->client);
    std::memcpy(record.token, event->token.bytes, sizeof record.token);
    if (event->error != nullptr) self->AttachError(record, *event->error);
    if (event->node != nullptr) {
        self->OpenScope();
        self->Attach(record, NodeValue(self->env_, *event->node));
    }
    self->Settle();
}

// The environment ends: no JavaScript runs any more, but its loop still turns until the hook is
// removed.
void Environment::OnCleanup(napi_async_cleanup_hook_handle, void *data) {
    auto *self = static_cast<Environment *>(data);
    self->closing_ = true;
    hf_engine_exit(self->engine_, kExitTimeoutMs);
    for (Handle *handle : self->retired_)
        handle->Free();
    for (Handle *handle : self->handles_) {
        if (handle != nullptr) handle->Free();
    }
    hf_engine_close(self->engine_, OnEngineClosed, self);
}

void Environment::OnEngineClosed(void *data) {
    auto *self = static_cast<Environment *>(data);
    self->engine_ = nullptr;
    // Nobody waits for them any more.
    for (const auto &each : self->questions_)
        hf_password_give(each.second, {nullptr, 0}, "");
    self->questions_.clear();
    for (Handle *handle : self->retired_)
        delete handle;
    for (Handle *handle : self->handles_)
        delete handle;
    self->retired_.clear();
    self->handles_.clear();
    self->context_.reset();
    napi_remove_async_cleanup_hook(self->hook_);
}

} // namespace holdfast
