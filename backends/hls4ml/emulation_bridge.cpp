// Runs whole batches through a project's top function: raw codes (or doubles) in, raw codes out.
// The marked lines are replaced for each project by hqc.backends.hls4ml.bridge.

#include <cstdint>
#include <pthread.h>
#include <stddef.h>
#include <vector>

// hqc: top header

namespace hqc_literals {
// hqc: literals
} // namespace hqc_literals

// hqc: constants

// Packets that a sample left in a stream, or missed at the end.
thread_local int64_t hqc_left = 0;

namespace {

// The constants are converted once, when the library is loaded, by the same constructor that runs
// in the vendor's C simulation; compiling one call per constant would take seconds.
template <class T> void convert(T *to, const double *from, size_t n) {
    for (size_t i = 0; i < n; i++)
        to[i] = T(from[i]);
}

struct Constants {
    Constants() {
        // hqc: convert
    }
} constants;

// The bits of a port element, without going through real numbers.
#if HQC_AC
template <int W, class T> void put(T &to, int64_t code) { to.set_slc(0, ac_int<W, false>(code)); }
template <int W, bool S, class T> int64_t get_bits(const T &from) {
    return ac_int<W, S>(from.template slc<W>(0)).to_int64();
}
#else
template <int W, class T> void put(T &to, int64_t code) { to.setBits(ap_ulong(code)); }
template <int W, bool S, class T> int64_t get_bits(T &from) {
    const uint64_t bits = uint64_t(from.range(W - 1, 0).to_uint64()) << (64 - W);
    return S ? int64_t(bits) >> (64 - W) : int64_t(bits >> (64 - W));
}
#endif

template <int W, class T> void put(T &to, double value) { to = T(value); }

template <int W, class T, class In> void fill(T *port, const In *from, int64_t size) {
    for (int64_t k = 0; k < size; k++)
        put<W>(port[k], from[k]);
}

template <int W, bool S, class T> void take(T *port, int64_t *to, int64_t size) {
    for (int64_t k = 0; k < size; k++)
        to[k] = get_bits<W, S>(port[k]);
}

#if HQC_AC
template <class T> using hqc_stream = ac_channel<T>;
#else
template <class T> using hqc_stream = hls::stream<T>;
#endif

template <int W, class T, class In> void feed(hqc_stream<T> &port, const In *from, int64_t size) {
    for (int64_t k = 0; k < size; k += T::size) {
        T packet;
        fill<W>(packet.data, from + k, T::size);
        port.write(packet);
    }
}

// Packets that are missing count as left over somewhere else.
template <int W, bool S, class T> void drain(hqc_stream<T> &port, int64_t *to, int64_t size) {
    for (int64_t k = 0; k < size; k += T::size) {
        if (port.empty()) {
            hqc_left++;
            return;
        }
        T packet = port.read();
        take<W, S>(packet.data, to + k, T::size);
    }
}

template <class In> void one_sample(const In *const *in, int64_t *const *out, int64_t n) {
    (void)in;
    // hqc: sample
}

template <class In> struct Slice {
    const In *const *in;
    int64_t *const *out;
    int64_t first, last;
    int64_t left;
};

template <class In> void *run_slice(void *argument) {
    Slice<In> &slice = *static_cast<Slice<In> *>(argument);
    for (int64_t n = slice.first; n < slice.last; n++)
        one_sample<In>(slice.in, slice.out, n);
    slice.left = hqc_left; // the thread is new, and ends here
    return nullptr;
}

// Threads of our own even for one slice: the top function keeps whole layers on the stack, which
// may be more than a caller's thread has.
template <class In>
int run_batch(const In *const *in, int64_t *const *out, int64_t samples, int threads, int64_t stack) {
    if (threads > samples)
        threads = samples > 0 ? int(samples) : 1;
    std::vector<Slice<In>> slices;
    for (int t = 0; t < threads; t++)
        slices.push_back({in, out, samples * t / threads, samples * (t + 1) / threads, 0});
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0)
        return 1;
    int failed = pthread_attr_setstacksize(&attributes, size_t(stack)) != 0;
    std::vector<pthread_t> running;
    for (size_t t = 0; t < slices.size() && !failed; t++) {
        pthread_t thread;
        failed = pthread_create(&thread, &attributes, run_slice<In>, &slices[t]) != 0;
        if (!failed)
            running.push_back(thread);
    }
    for (pthread_t thread : running)
        pthread_join(thread, nullptr);
    pthread_attr_destroy(&attributes);
    for (const Slice<In> &slice : slices)
        if (!failed && slice.left != 0)
            failed = 2;
    return failed;
}

} // namespace

#define HQC_API extern "C" __attribute__((visibility("default")))

HQC_API int hqc_run_codes(const int64_t *const *in, int64_t *const *out, int64_t samples, int threads,
                          int64_t stack) {
    return run_batch<int64_t>(in, out, samples, threads, stack);
}

HQC_API int hqc_run_reals(const double *const *in, int64_t *const *out, int64_t samples, int threads,
                          int64_t stack) {
    return run_batch<double>(in, out, samples, threads, stack);
}
