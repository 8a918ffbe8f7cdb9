#ifndef HQC_THRESHOLD_H_
#define HQC_THRESHOLD_H_

#include "nnet_common.h"

namespace nnet {

struct hqc_threshold_config {
    static const unsigned n_in = 10;
    static const unsigned n_rows = 1;
    static const unsigned n_thresholds = 1;
    static const int first = 0;
    static const unsigned io_type = io_parallel;
    static const unsigned reuse_factor = 1;
};

// first + number of thresholds that element ii reaches. Rows of thresholds: one for all elements,
// one per channel (channels come last), or one per element. Thresholds are on the grid of x.
template <class T, typename CONFIG_T>
int hqc_reached(const T &x, unsigned ii,
                typename CONFIG_T::threshold_t thresholds[CONFIG_T::n_rows * CONFIG_T::n_thresholds]) {
    #pragma HLS INLINE
    const unsigned row = ii % CONFIG_T::n_rows;
    int count = CONFIG_T::first;
    #pragma hls_unroll yes
Thresholds:
    for (unsigned kk = 0; kk < CONFIG_T::n_thresholds; kk++) {
        #pragma HLS UNROLL
        if (x >= thresholds[row * CONFIG_T::n_thresholds + kk])
            count++;
    }
    return count;
}

template <class data_T, class res_T, typename CONFIG_T>
void hqc_threshold(data_T data[CONFIG_T::n_in], res_T res[CONFIG_T::n_in],
                   typename CONFIG_T::threshold_t thresholds[CONFIG_T::n_rows * CONFIG_T::n_thresholds]) {
    #pragma HLS PIPELINE
    #pragma HLS ARRAY_PARTITION variable=thresholds complete

Elements:
    for (unsigned ii = 0; ii < CONFIG_T::n_in; ii++) {
        res[ii] = hqc_reached<data_T, CONFIG_T>(data[ii], ii, thresholds);
    }
}

// The same packet by packet.
template <class data_T, class res_T, typename CONFIG_T, class in_S, class out_S>
void hqc_threshold_stream(in_S &data, out_S &res,
                          typename CONFIG_T::threshold_t thresholds[CONFIG_T::n_rows * CONFIG_T::n_thresholds]) {
    #pragma HLS ARRAY_PARTITION variable=thresholds complete

Packets:
    for (unsigned ii = 0; ii < CONFIG_T::n_in / data_T::size; ii++) {
        #pragma HLS PIPELINE
        const data_T x = data.read();
        res_T packet;
    Elements:
        for (unsigned jj = 0; jj < data_T::size; jj++) {
            #pragma HLS UNROLL
            packet[jj] =
                hqc_reached<typename data_T::value_type, CONFIG_T>(x[jj], ii * data_T::size + jj, thresholds);
        }
        res.write(packet);
    }
}

} // namespace nnet

#endif
