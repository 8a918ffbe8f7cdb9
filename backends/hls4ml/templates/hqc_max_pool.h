#ifndef HQC_MAX_POOL_H_
#define HQC_MAX_POOL_H_

#include "hqc_window.h"
#include "nnet_common.h"

namespace nnet {

struct hqc_max_pool_config {
    static const unsigned io_type = io_parallel;
};

// The larger one of x and the best so far, if one was found.
template <class T> void hqc_keep_larger(const T &x, T &best, bool &found) {
    #pragma HLS INLINE
    if (!found || x > best)
        best = x;
    found = true;
}

// The largest element of each window, per channel. Taps in the padding are left out, rather than
// given the value with the top bit alone set, as hls4ml's pooling does: among unsigned numbers that
// one wins over half of the others.
template <class data_T, class res_T, typename CONFIG_T>
void hqc_max_pool_2d(data_T data[CONFIG_T::in_height * CONFIG_T::in_width * CONFIG_T::n_chan],
                     res_T res[CONFIG_T::out_height * CONFIG_T::out_width * CONFIG_T::n_chan]) {
    typedef hqc_tap<CONFIG_T> tap;
OutRows:
    for (unsigned oh = 0; oh < CONFIG_T::out_height; oh++) {
    OutColumns:
        for (unsigned ow = 0; ow < CONFIG_T::out_width; ow++) {
            #pragma HLS PIPELINE II=CONFIG_T::reuse_factor
        Channels:
            for (unsigned cc = 0; cc < CONFIG_T::n_chan; cc++) {
                #pragma HLS UNROLL
                data_T best = 0;
                bool found = false;
                #pragma hls_unroll yes
            Rows:
                for (unsigned fh = 0; fh < CONFIG_T::filt_height; fh++) {
                    #pragma HLS UNROLL
                    const int row = tap::row(oh, fh);
                    #pragma hls_unroll yes
                Columns:
                    for (unsigned fw = 0; fw < CONFIG_T::filt_width; fw++) {
                        #pragma HLS UNROLL
                        const int column = tap::column(ow, fw);
                        if (tap::inside(row, column))
                            hqc_keep_larger(data[tap::element(row, column) + cc], best, found);
                    }
                }
                res[(oh * CONFIG_T::out_width + ow) * CONFIG_T::n_chan + cc] = best;
            }
        }
    }
}

} // namespace nnet

#endif
