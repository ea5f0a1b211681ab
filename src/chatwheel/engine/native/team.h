// Threads that run in step with each other.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

inline void pause_briefly(int turn) {
#if defined(__x86_64__)
    if (turn < 4000) return __builtin_ia32_pause();
#endif
    std::this_thread::yield();
}

// Threads that run one function at a time together, and meet within it. They spin for a little while between two calls,
// then sleep.
class Team {
  public:
    explicit Team(int size) : size_(size) {
        try {
            for (int i = 1; i < size; i++) threads_.emplace_back([this, i] { serve(i); });
        } catch (...) {
            end();
            throw;
        }
    }

    ~Team() { end(); }

    int size() const { return size_; }

    // False if one of them could not go on. Work that meets must not throw: the others would wait for ever.
    template <class Work>
    bool run(Work& work) {
        set(work);
        {
            std::lock_guard<std::mutex> lock(mutex_);
            calls_.fetch_add(1);
        }
        if (sleeping_.load()) wake_.notify_all();
        call(0);
        meet();
        return !failed_.load(std::memory_order_relaxed);
    }

    // The same by this thread, where it is not worth waking the others.
    template <class Work>
    bool run_alone(Work& work) {
        set(work);
        call(0);
        return !failed_.load(std::memory_order_relaxed);
    }

    // All go on when all have come.
    void meet() {
        if (size_ == 1) return;
        const int turn = turns_.load(std::memory_order_acquire);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) == size_ - 1) {
            arrived_.store(0, std::memory_order_relaxed);
            turns_.store(turn + 1, std::memory_order_release);
        } else {
            for (int i = 0; turns_.load(std::memory_order_acquire) == turn; i++) pause_briefly(i);
        }
    }

  private:
    template <class Work>
    void set(Work& work) {
        call_ = [](void* what, int thread) { (*static_cast<Work*>(what))(thread); };
        what_ = &work;
        failed_.store(false, std::memory_order_relaxed);
    }

    void end() {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            ending_ = true;
            calls_.fetch_add(1);
        }
        wake_.notify_all();
        for (auto& thread : threads_) thread.join();
    }

    void call(int number) {
        try {
            call_(what_, number);
        } catch (...) {
            failed_.store(true, std::memory_order_relaxed);
        }
    }

    void serve(int number) {
        int seen = 0;
        while (true) {
            for (int i = 0; i < 4500 && calls_.load(std::memory_order_acquire) == seen; i++) pause_briefly(i);
            if (calls_.load() == seen) {
                std::unique_lock<std::mutex> lock(mutex_);
                sleeping_.fetch_add(1);
                wake_.wait(lock, [&] { return calls_.load() != seen; });
                sleeping_.fetch_sub(1);
            }
            seen = calls_.load(std::memory_order_acquire);
            if (ending_) return;
            call(number);
            meet();
        }
    }

    const int size_;
    std::vector<std::thread> threads_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::atomic<int> calls_{0}, sleeping_{0}, arrived_{0}, turns_{0};
    std::atomic<bool> failed_{false};
    void (*call_)(void*, int) = nullptr;
    void* what_ = nullptr;
    bool ending_ = false;
};

}  // namespace
