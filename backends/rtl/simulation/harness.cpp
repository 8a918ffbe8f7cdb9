// Drives a Verilated design cycle by cycle, and notes in which cycle what went in and came out.
//
// The design's top is the wrapper that hqc.backends.rtl.wrapper writes: all input elements are one
// bus x, all output elements one bus y, element 0 in the lowest bits.

#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "Vbench.h"
#include "verilated.h"

namespace {

using Words = std::vector<uint32_t>;

// A port of a Verilated model is an integer of 8 to 64 bits, or an array of 32-bit words.
template <class Bits> void put(Bits &port, const Words &words) {
    uint64_t value = words[0];
    if (sizeof(Bits) > 4)
        value |= uint64_t(words[1]) << 32;
    port = static_cast<Bits>(value);
}

template <std::size_t N> void put(VlWide<N> &port, const Words &words) {
    std::memcpy(port.data(), words.data(), sizeof(uint32_t) * N);
}

template <class Bits> void get(const Bits &port, Words &words) {
    words[0] = static_cast<uint32_t>(port);
    if (sizeof(Bits) > 4)
        words[1] = static_cast<uint32_t>(uint64_t(port) >> 32);
}

template <std::size_t N> void get(const VlWide<N> &port, Words &words) {
    std::memcpy(words.data(), port.data(), sizeof(uint32_t) * N);
}

struct Port {
    int64_t size, width, is_signed;
};

int64_t bits_of(const Port *ports, int64_t count) {
    int64_t bits = 0;
    for (int64_t p = 0; p < count; p++)
        bits += ports[p].size * ports[p].width;
    return bits;
}

// One word more than the bits need, so that 64 bits can be touched from any word.
Words bus_of(const Port *ports, int64_t count) {
    return Words(static_cast<std::size_t>(bits_of(ports, count) / 32 + 3), 0);
}

void pack(Words &bus, const Port *ports, int64_t count, const int64_t *const *codes, int64_t row) {
    std::fill(bus.begin(), bus.end(), 0u);
    int64_t bit = 0;
    for (int64_t p = 0; p < count; p++) {
        const int64_t width = ports[p].width;
        const uint64_t mask = ~uint64_t(0) >> (64 - width);
        for (int64_t i = 0; i < ports[p].size; i++, bit += width) {
            const uint64_t value = uint64_t(codes[p][row * ports[p].size + i]) & mask;
            const int64_t word = bit / 32, shift = bit % 32;
            bus[word] |= uint32_t(value << shift);
            bus[word + 1] |= uint32_t(value << shift >> 32);
            if (shift)
                bus[word + 2] |= uint32_t(value >> (64 - shift));
        }
    }
}

void unpack(const Words &bus, const Port *ports, int64_t count, int64_t *const *codes, int64_t row) {
    int64_t bit = 0;
    for (int64_t p = 0; p < count; p++) {
        const int64_t width = ports[p].width;
        const uint64_t mask = ~uint64_t(0) >> (64 - width), sign = uint64_t(1) << (width - 1);
        for (int64_t i = 0; i < ports[p].size; i++, bit += width) {
            const int64_t word = bit / 32, shift = bit % 32;
            uint64_t value = (uint64_t(bus[word + 1]) << 32 | bus[word]) >> shift;
            if (shift)
                value |= uint64_t(bus[word + 2]) << (64 - shift);
            value &= mask;
            if (ports[p].is_signed)
                value = (value ^ sign) - sign;
            codes[p][row * ports[p].size + i] = int64_t(value);
        }
    }
}

} // namespace

struct Job {
    const Port *input_ports, *output_ports;
    int64_t inputs, outputs;
    const int64_t *const *codes;
    int64_t *const *results;
    int64_t samples;
    const uint8_t *offer, *take; // one byte per cycle, again from the start after `period`
    int64_t period;
    int64_t settle;   // cycles of rubbish before the reset
    int64_t patience; // cycles without any progress before giving up
    int64_t tail;     // cycles watched after the last result
    int64_t seed;     // of the state of registers at power-up
    int64_t *accepted, *produced; // cycle of each sample
    int64_t *counts;  // accepted, produced, results too many, stalled results that changed
};

// What came out stands in `results`, `accepted`, `produced` and `counts`.
extern "C" __attribute__((visibility("default"))) void hqc_simulate(const Job *job) {
    auto context = std::make_unique<VerilatedContext>();
    context->randReset(2);
    context->randSeed(static_cast<int>(job->seed));
    auto model = std::make_unique<Vbench>(context.get());
    Words x = bus_of(job->input_ports, job->inputs), rubbish = x;
    Words y = bus_of(job->output_ports, job->outputs), held = y;
    const std::size_t used =
        static_cast<std::size_t>((bits_of(job->output_ports, job->outputs) + 31) / 32);
    int64_t *counts = job->counts;
    std::memset(counts, 0, 4 * sizeof(int64_t));

    const auto settle = [&] { model->clk = 0; model->eval(); };
    const auto clock = [&] { model->clk = 1; model->eval(); };

    model->rst = 0;
    model->in_valid = 1;
    model->out_ready = 1;
    for (int64_t cycle = 0; cycle < job->settle; cycle++) {
        for (auto &word : rubbish)
            word = word * 1664525u + 1013904223u;
        put(model->x, rubbish);
        settle();
        clock();
    }
    model->rst = 1;
    model->in_valid = 0;
    settle();
    clock();
    model->rst = 0;

    bool waiting = false, stalled = false, fresh = true;
    int64_t quiet = 0;
    for (int64_t cycle = 0; quiet <= job->patience; cycle++, quiet++) {
        if (counts[1] >= job->samples && quiet >= job->tail)
            break;
        const int64_t phase = cycle % job->period;
        const bool valid = counts[0] < job->samples && (waiting || job->offer[phase]);
        const bool ready = job->take[phase];
        if (valid && fresh) {
            pack(x, job->input_ports, job->inputs, job->codes, counts[0]);
            fresh = false;
        }
        if (!valid) // what lies on the bus when it is not valid is not to matter
            for (std::size_t i = 0; i < x.size(); i++)
                rubbish[i] = ~x[i];
        put(model->x, valid ? x : rubbish);
        model->in_valid = valid;
        model->out_ready = ready;
        settle();
        waiting = valid && !model->in_ready;
        if (valid && model->in_ready) {
            job->accepted[counts[0]++] = cycle;
            fresh = true;
            quiet = 0;
        }
        if (model->out_valid) {
            get(model->y, y);
            if (stalled && std::memcmp(y.data(), held.data(), 4 * used) != 0)
                counts[3]++;
            held = y;
            if (ready && counts[1] < job->samples) {
                unpack(y, job->output_ports, job->outputs, job->results, counts[1]);
                job->produced[counts[1]++] = cycle;
                quiet = 0;
            } else if (ready) {
                counts[2]++;
            }
        } else if (stalled) {
            counts[3]++;
        }
        stalled = model->out_valid && !ready;
        clock();
    }
    model->final();
}
