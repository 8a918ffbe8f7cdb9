#ifndef HQC_CONV_H_
#define HQC_CONV_H_

#include "hqc_window.h"
#include "nnet_common.h"
#include "nnet_helpers.h"
#include "nnet_mult.h"

namespace nnet {

// The windows of one partition of the output pixels, row by row.
template <class data_T, class CONFIG_T> class hqc_fill_buffer {
  public:
    static void
    fill_buffer(data_T data[CONFIG_T::in_height * CONFIG_T::in_width * CONFIG_T::n_chan],
                data_T buffer[CONFIG_T::n_pixels][CONFIG_T::filt_height * CONFIG_T::filt_width * CONFIG_T::n_chan],
                const unsigned partition) {
        #pragma HLS INLINE
        typedef hqc_tap<CONFIG_T> tap;
    Pixels:
        for (unsigned pixel = 0; pixel < CONFIG_T::n_pixels; pixel++) {
            #pragma HLS UNROLL
            const unsigned at = partition * CONFIG_T::n_pixels + pixel;
        Rows:
            for (unsigned fh = 0; fh < CONFIG_T::filt_height; fh++) {
                #pragma HLS UNROLL
                const int row = tap::row(at / CONFIG_T::out_width, fh);
            Columns:
                for (unsigned fw = 0; fw < CONFIG_T::filt_width; fw++) {
                    #pragma HLS UNROLL
                    const int column = tap::column(at % CONFIG_T::out_width, fw);
                    const unsigned from = tap::element(row, column);
                Channels:
                    for (unsigned cc = 0; cc < CONFIG_T::n_chan; cc++) {
                        #pragma HLS UNROLL
                        const unsigned to = (fh * CONFIG_T::filt_width + fw) * CONFIG_T::n_chan + cc;
                        if (tap::inside(row, column))
                            buffer[pixel][to] = data[from + cc];
                        else
                            buffer[pixel][to] = 0;
                    }
                }
            }
        }
    }
};

// Members that hls4ml's own convolutions read, beside those that are emitted for each layer.
struct hqc_conv_config {
    static const unsigned io_type = io_parallel;
    static const bool store_weights_in_bram = false;
    static const unsigned n_zeros = 0;
    template <class x_T, class y_T> using product = nnet::product::mult<x_T, y_T>;
    template <class data_T, class CONFIG_T> using fill_buffer = nnet::hqc_fill_buffer<data_T, CONFIG_T>;
};

// Convolution in groups: output channel ff reads the input channels of its own group only.
// weights are (filt_height, filt_width, n_chan / n_group, n_filt). Vitis reads the pragmas that begin
// with HLS, Catapult those that begin with hls_; whether Catapult pipelines the windows depends on the
// memories that it maps data to, and is left to its directives, as in hls4ml's own templates.
template <class data_T, class res_T, typename CONFIG_T>
void hqc_group_conv_2d(
    data_T data[CONFIG_T::in_height * CONFIG_T::in_width * CONFIG_T::n_chan],
    res_T res[CONFIG_T::out_height * CONFIG_T::out_width * CONFIG_T::n_filt],
    typename CONFIG_T::weight_t weights[CONFIG_T::n_in * CONFIG_T::n_filt],
    typename CONFIG_T::bias_t biases[CONFIG_T::n_filt]) {
    #pragma HLS ARRAY_PARTITION variable=weights complete
    #pragma HLS ARRAY_PARTITION variable=biases complete
    #pragma HLS ALLOCATION operation instances=mul limit=CONFIG_T::multiplier_limit
    typedef hqc_tap<CONFIG_T> tap;
    const unsigned chan_per_group = CONFIG_T::n_chan / CONFIG_T::n_group;
    const unsigned filt_per_group = CONFIG_T::n_filt / CONFIG_T::n_group;

OutRows:
    for (unsigned oh = 0; oh < CONFIG_T::out_height; oh++) {
    OutColumns:
        for (unsigned ow = 0; ow < CONFIG_T::out_width; ow++) {
            #pragma HLS PIPELINE II=CONFIG_T::reuse_factor
        Filters:
            for (unsigned ff = 0; ff < CONFIG_T::n_filt; ff++) {
                #pragma HLS UNROLL
                const unsigned first = ff / filt_per_group * chan_per_group;
                typename CONFIG_T::accum_t acc = (typename CONFIG_T::accum_t)biases[ff];
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
                        const unsigned from = tap::element(row, column) + first;
                        #pragma hls_unroll yes
                    Channels:
                        for (unsigned cc = 0; cc < chan_per_group; cc++) {
                            #pragma HLS UNROLL
                            const unsigned tap = (fh * CONFIG_T::filt_width + fw) * chan_per_group + cc;
                            if (tap::inside(row, column))
                                acc += (typename CONFIG_T::accum_t)
                                    CONFIG_T::template product<data_T, typename CONFIG_T::weight_t>::product(
                                        data[from + cc], weights[tap * CONFIG_T::n_filt + ff]);
                        }
                    }
                }
                res[(oh * CONFIG_T::out_width + ow) * CONFIG_T::n_filt + ff] = (res_T)acc;
            }
        }
    }
}

} // namespace nnet

#endif
